//! stub
#![allow(clippy::todo, missing_docs, clippy::unused_async, clippy::too_many_arguments)]
use super::*;
/// stub
#[derive(Debug, Clone)]
pub struct RedisRegistry {}
type R<T> = Result<T, RegistryError>;
impl RedisRegistry {
    pub async fn open_lease(&self, _i: &Incarnation, _info: &GatewayInfo) -> R<()> {
        todo!()
    }
    pub async fn beat(&self, _i: &Incarnation, _a: &[NickKey]) -> R<Beat> {
        todo!()
    }
    pub async fn leases(&self) -> R<Vec<Lease>> {
        todo!()
    }
    pub async fn set_lease(&self, _i: &Incarnation, _s: LeaseState) -> R<()> {
        todo!()
    }
    pub async fn fence(&self, _i: &Incarnation, _c: u64) -> R<bool> {
        todo!()
    }
    pub async fn reap(&self, _i: &Incarnation, _l: usize) -> R<Reaped> {
        todo!()
    }
    pub async fn claim(&self, _i: &Incarnation, _s: &SessionId, _n: &Nick) -> Result<Fence, ClaimError> {
        todo!()
    }
    pub async fn release(&self, _n: &Nick, _o: &Owner, _r: Option<&Nick>) -> R<bool> {
        todo!()
    }
    pub async fn join(&self, _r: &RoomName, _n: &Nick, _o: &Owner, _s: &Status, _e: Entry<'_>) -> R<Joined> {
        todo!()
    }
    pub async fn leave(&self, _r: &RoomName, _n: &Nick, _o: &Owner, _l: LeftReason) -> R<bool> {
        todo!()
    }
    pub async fn set_status(&self, _n: &Nick, _o: &Owner, _s: &Status, _r: &[RoomKey]) -> R<bool> {
        todo!()
    }
    pub async fn kick(&self, _n: &NickKey) -> R<bool> {
        todo!()
    }
    pub async fn user(&self, _n: &NickKey) -> R<Option<User>> {
        todo!()
    }
    pub async fn lookup(&self, _n: &[NickKey]) -> R<Vec<Option<User>>> {
        todo!()
    }
    pub async fn users(&self, _c: Option<&str>, _l: usize) -> R<Page<User>> {
        todo!()
    }
    pub async fn rooms(&self, _c: Option<&str>, _l: usize) -> R<Page<Room>> {
        todo!()
    }
    pub async fn room(&self, _r: &RoomKey) -> R<Option<Room>> {
        todo!()
    }
    pub async fn members(&self, _r: &RoomKey, _c: Option<&str>, _l: usize) -> R<Page<MemberInfo>> {
        todo!()
    }
    pub async fn gateways(&self) -> R<Vec<Gateway>> {
        todo!()
    }
    pub async fn stats(&self) -> R<Stats> {
        todo!()
    }
    pub async fn events(&self, _a: Option<&str>, _l: usize) -> R<(Vec<Event>, Option<String>)> {
        todo!()
    }
    pub async fn event_log(&self) -> R<EventLog> {
        todo!()
    }
}
