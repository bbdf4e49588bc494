//! The one integration binary: every test that needs more than one crate.

mod backplane_contract;
mod registry_contract;
