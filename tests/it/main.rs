fn main() {}
mod registry_contract;
