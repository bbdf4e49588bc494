//! The one integration binary.

mod backplane_contract;
