//! stub
use presence::codes::ErrorCode;
/// stub
#[derive(Debug, Default)]
pub struct Metrics {}
impl Metrics {
    /// stub
    pub fn refused(&self, _code: ErrorCode) {}
    /// stub
    pub fn registered(&self) {}
}
