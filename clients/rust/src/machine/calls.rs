//! The calls of a session that have no answer yet, by id. Calls of one lane run one after another, in their order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use super::CallId;
use crate::wire::{ClientRequest, EventFrame};

/// The first id of the machine's own calls. Those of the application are smaller.
const FIRST_OWN_ID: CallId = 1 << 62;

/// A request that is repeated until it is answered.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) request: ClientRequest,
    lane: Option<String>,
    /// False for a call of the machine itself, and for a call that was aborted after it was sent.
    pub(super) has_caller: bool,
    pub(super) is_on_wire: bool,
    /// Time of the newest attempt.
    pub(super) sent_at: Duration,
    /// True if an earlier attempt may have taken effect.
    pub(super) maybe_done: bool,
    /// Number of temporary refusals.
    pub(super) refusals: u32,
    /// Time of the next attempt.
    pub(super) due: Duration,
    /// Time at which a send ends that has no answer.
    pub(super) expires: Option<Duration>,
    /// Events of a room that came before the reply to its `join`.
    pub(super) held: Vec<EventFrame>,
}

impl Call {
    pub(super) fn is_join(&self) -> bool {
        matches!(self.request, ClientRequest::Join { .. })
    }

    pub(super) fn is_send(&self) -> bool {
        matches!(self.request, ClientRequest::Send { .. })
    }

    /// Returns true for a `join` of the machine itself.
    pub(super) fn is_rejoin(&self) -> bool {
        self.is_join() && !self.has_caller
    }
}

/// Calls by id, and their lanes.
#[derive(Debug, Default)]
pub(super) struct Calls {
    by_id: BTreeMap<CallId, Call>,
    lanes: HashMap<String, VecDeque<CallId>>,
    own_calls: u64,
}

impl Calls {
    /// Adds a call of the application to the end of its lane.
    pub(super) fn add(&mut self, id: CallId, request: ClientRequest) {
        self.insert(id, request, true, false);
    }

    /// Adds a call of the machine itself, which goes ahead of its lane. Returns its id.
    pub(super) fn add_own(&mut self, request: ClientRequest) -> CallId {
        self.own_calls += 1;
        let id = FIRST_OWN_ID + self.own_calls;
        self.insert(id, request, false, true);
        id
    }

    fn insert(&mut self, id: CallId, request: ClientRequest, has_caller: bool, is_first: bool) {
        let lane = request.lane();
        if let Some(lane) = &lane {
            let ids = self.lanes.entry(lane.clone()).or_default();
            if is_first { ids.push_front(id) } else { ids.push_back(id) }
        }
        let call = Call {
            request,
            lane,
            has_caller,
            is_on_wire: false,
            sent_at: Duration::ZERO,
            maybe_done: false,
            refusals: 0,
            due: Duration::ZERO,
            expires: None,
            held: Vec::new(),
        };
        self.by_id.insert(id, call);
    }

    pub(super) fn get(&self, id: CallId) -> Option<&Call> {
        self.by_id.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: CallId) -> Option<&mut Call> {
        self.by_id.get_mut(&id)
    }

    /// Removes a call. Returns it with the call that its lane continues with.
    pub(super) fn remove(&mut self, id: CallId) -> Option<(Call, Option<CallId>)> {
        let call = self.by_id.remove(&id)?;
        let mut next = None;
        if let Some(name) = &call.lane
            && let Some(lane) = self.lanes.get_mut(name)
        {
            lane.retain(|other| *other != id);
            next = lane.front().copied();
            if next.is_none() {
                self.lanes.remove(name);
            }
        }
        Some((call, next))
    }

    /// Returns true if it is the turn of this call.
    pub(super) fn is_first(&self, id: CallId) -> bool {
        let lane = self.get(id).and_then(|call| call.lane.as_ref());
        lane.is_none_or(|lane| self.head(lane) == Some(id))
    }

    /// Returns the call of a lane whose turn it is.
    pub(super) fn head(&self, lane: &str) -> Option<CallId> {
        self.lanes.get(lane)?.front().copied()
    }

    /// Returns the `join` whose turn it is in a lane.
    pub(super) fn head_join(&mut self, lane: &str) -> Option<&mut Call> {
        let id = self.head(lane)?;
        self.get_mut(id).filter(|call| call.is_join())
    }

    /// Returns true if a `leave` of this lane has no answer yet.
    pub(super) fn is_leaving(&self, lane: &str) -> bool {
        let mut ids = self.lanes.get(lane).into_iter().flatten();
        ids.any(|id| self.get(*id).is_some_and(|call| matches!(call.request, ClientRequest::Leave { .. })))
    }

    /// Returns the ids of all calls, those of the application in their order first.
    pub(super) fn ids(&self) -> Vec<CallId> {
        self.by_id.keys().copied().collect()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Call> {
        self.by_id.values_mut()
    }
}
