//! Any replies of Redis lead each call to a value or to an error in words: never to a panic, never to a wait.
//!
//! An input is the name of a call, a line feed, and the replies to its commands in RESP. [`CALLS`] are the calls of
//! registry, store and backplane. Their order is a story, which the recorder of the corpus plays on a real Redis.

use std::fmt::{Debug, Display};
use std::num::NonZeroU64;
use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use gateway::backplane::{
    Backplane, PageLimit, PriorPosition, PublishAttempt, PublishRequest, Range, RedisBackplane, RedisBackplaneSettings,
    StreamId,
};
use gateway::message::{Accepted, Body, Target};
use presence::model::moderation::{ModerationAction, ModerationOrder, ModerationTarget, RoomRole};
use presence::model::{
    Fence, Incarnation, LeftReason, MemberInfo, Nick, NickKey, OfflineReason, Owner, RoomKey, RoomName, RoomRules,
    SanctionKind, SanctionOrder, SanctionSubject, SessionId, Status, TokenHash, UserId,
};
use presence::registry::{
    AnnouncementRequest, ApiPost, BeatReport, ClaimRequest, GatewayInfo, HeldSession, HoldTerms, JoinEntry,
    JoinRequest, LeaseTransition, LeaveIntent, LeaveRequest, LocalClaim, LoggedEvent, ModerationCaller,
    ModerationRequest, PostTarget, ReassertBatch, RedisRegistry, Registry, ReleaseCause, ResumeTicket, SanctionCursor,
    WebhookLead, WebhookSettlement,
};
use presence::store::redis::RedisStore;
use tokio::runtime::Runtime;

use super::scripted_redis::ScriptedRedis;

/// The time within which every call must end: above the 4 s for which a publish is repeated.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A value or an error in words.
pub(crate) type CallOutcome = Result<String, String>;
type MakeCall = for<'a> fn(&'a StoreCalls) -> Pin<Box<dyn Future<Output = CallOutcome> + 'a>>;

/// Makes the call that the input names, with the replies behind the name. Publishes with an unknown outcome are
/// repeated for this time at most.
pub(crate) fn check(input: &[u8], repeats: Duration) {
    let Some(line) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (name, replies) = (&input[..line], &input[line + 1..]);
    let Some((name, call)) = CALLS.iter().find(|(of, _)| of.as_bytes() == name) else { return };
    SERVER.with(|(runtime, server)| {
        server.set_replies(replies);
        runtime.block_on(async {
            let calls = StoreCalls { repeats, ..StoreCalls::on(Rc::clone(server)) };
            let outcome = tokio::time::timeout(PATIENCE, call(&calls)).await;
            let outcome = outcome.unwrap_or_else(|_| panic!("{name} waits"));
            assert!(outcome.as_ref().err().is_none_or(|error| !error.is_empty()), "{name}");
        });
    });
}

thread_local! {
    /// One for all inputs: a client whose connection broke frees it once it has connected again.
    static SERVER: (Runtime, Rc<ScriptedRedis>) = {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let server = runtime.block_on(async { ScriptedRedis::with_replies(b"") });
        (runtime, Rc::new(server))
    };
}

/// The stores of a gateway on one Redis, and the session that makes the calls.
pub(crate) struct StoreCalls {
    pub(crate) server: Rc<ScriptedRedis>,
    redis: RedisStore,
    registry: RedisRegistry,
    names: Registry,
    backplane: Backplane,
    info: GatewayInfo,
    nick: Nick,
    user: UserId,
    room: RoomName,
    owner: Owner,
    tokens: [TokenHash; 2],
    status: Status,
    repeats: Duration,
}

impl StoreCalls {
    pub(crate) fn on(server: Rc<ScriptedRedis>) -> Self {
        let redis = RedisStore::open(&server.url(), "parley").expect("a valid address");
        let registry = RedisRegistry::new(redis.clone());
        let sink = std::sync::Arc::new(|_: gateway::backplane::Delivery| {});
        let backplane = RedisBackplane::start(redis.clone(), RedisBackplaneSettings::default(), sink);
        let [node, version, ws, tcp, admin] = ["n1", "1.0.0", "127.0.0.1:1", "127.0.0.1:2", ""].map(str::to_owned);
        let (incarnation, session) = (Incarnation::from_store("g1"), SessionId::from_store("s1"));
        Self {
            server,
            names: Registry::Redis(registry.clone()),
            backplane: Backplane::Redis(backplane),
            redis,
            registry,
            info: GatewayInfo { node, version, ws, tcp, admin },
            nick: Nick::parse("ann").expect("a nickname"),
            user: UserId::parse("u1").expect("a user"),
            room: RoomName::parse("#home").expect("a room"),
            owner: Owner { incarnation, session, fence: Fence(1) },
            tokens: [TokenHash::of(b"first"), TokenHash::of(b"second")],
            status: Status::default(),
            repeats: PATIENCE,
        }
    }

    fn claim(&self) -> LocalClaim {
        let (nick, owner, user) = (self.nick.clone(), self.owner.clone(), Some(Box::new(self.user.clone())));
        let (status, rooms, token) = (self.status.clone(), vec![self.room.clone()], self.tokens[0].clone());
        LocalClaim { nick, owner, user, status, rooms, token, detached: false }
    }

    async fn post(&self, to: PostTarget) -> CallOutcome {
        let [application, key, msg_id, payload] = ["app", "k1", "m1", "{}"].map(str::to_owned);
        let posts = [ApiPost { to, application, key, msg_id, payload }];
        self.repeated(async { outcome(self.names.post(&posts).await.remove(0)) }).await
    }

    fn ban(&self) -> SanctionOrder {
        let subject = SanctionSubject::Nick(self.nick.clone());
        SanctionOrder::new(SanctionKind::Ban, subject, "app", "").expect("an order")
    }

    fn announcement(&self) -> AnnouncementRequest {
        let [application, id] = ["app", "a1"].map(str::to_owned);
        let (key, tags, body) = (Some("k1".to_owned()), Vec::new(), Box::default());
        AnnouncementRequest { application, key, id, tags, body }
    }

    fn logged_event(&self) -> LoggedEvent {
        let [kind, at, data] = ["join", "", "{}"].map(str::to_owned);
        LoggedEvent { number: 1, original: 1, kind, time: 1, logged: 1, at, data, only: None }
    }

    fn message(&self, key: Option<&str>) -> PublishRequest {
        PublishRequest {
            msg_id: "m1".to_owned(),
            key: key.map(str::to_owned),
            from: self.nick.clone(),
            from_user: Some(self.user.clone()),
            owner: self.owner.clone(),
            moderates: false,
            body: Body::from_text("hello"),
            accepted: Accepted::at(SystemTime::UNIX_EPOCH),
        }
    }

    async fn generation(&self) -> Result<u64, String> {
        let beat = self.names.beat(&self.owner.incarnation, &[]).await;
        beat.map(|beat| beat.generation.number).map_err(|error| error.to_string())
    }

    async fn publish(&self, key: Option<&str>) -> CallOutcome {
        let (message, first) = (self.message(key), PriorPosition::default());
        let published = self.backplane.publish(&self.room, &message, PublishAttempt::First(&first));
        self.repeated(async { outcome(published.await) }).await
    }

    async fn direct(&self) -> CallOutcome {
        let message = self.message(Some("k1"));
        self.repeated(async { outcome(self.backplane.direct(self.nick.key(), &message).await) }).await
    }

    /// Waits for a call that is repeated.
    async fn repeated(&self, call: impl Future<Output = CallOutcome>) -> CallOutcome {
        tokio::time::timeout(self.repeats, call).await.unwrap_or_else(|_| Err("still repeated".to_owned()))
    }

    /// Republishes a published message in the next generation, until that is done or Redis refuses.
    async fn republish(&self) -> CallOutcome {
        let note_beat = |generation| {
            self.backplane.note_beat(&self.owner.incarnation, generation, Instant::now(), Instant::now());
        };
        let generation = self.generation().await?;
        note_beat(generation);
        self.publish(None).await?;
        let (next, mut republished) = (generation.wrapping_add(1), 0);
        note_beat(next);
        let ended = async {
            while !self.backplane.has_all_acknowledged(next) && !self.server.is_spent() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = self.backplane.republish(|count| republished += count) => {}
            () = ended => {}
        }
        assert!(republished <= 1, "one message was published");
        Ok(format!("{republished}"))
    }

    fn room_stream(&self) -> StreamId {
        StreamId::Room(self.room.key().clone())
    }

    fn keys(&self) -> [NickKey; 2] {
        [self.nick.key().clone(), NickKey::from_store("bob")]
    }
}

fn outcome<T: Debug, E: Display>(result: Result<T, E>) -> CallOutcome {
    result.map(|value| format!("{value:?}")).map_err(|error| error.to_string())
}

/// Declares the calls: name, and the result with these calls' values.
macro_rules! calls {
    ($($name:ident = |$calls:ident| $result:expr;)*) => {
        pub(crate) const CALLS: &[(&str, MakeCall)] =
            &[$((stringify!($name), |$calls| Box::pin(async move { $result }))),*];
    };
}

/// The events of webhooks, as the leading presence process writes them.
const WANTED: &str = "1000 1000000 direct_offline join leave message: offline online ";
const HOLD: HoldTerms = HoldTerms { hold: Duration::from_secs(60), after: Duration::ZERO };
const LIMIT: PageLimit = PageLimit { messages: 20, bytes: 65_536 };

calls! {
    open_lease = |s| outcome(s.names.open_lease(&s.owner.incarnation, &s.info).await);
    open_first_lease = |s| {
        let ended = [Incarnation::from_store("g0")];
        outcome(s.names.open_first_lease(&Incarnation::from_store("g2"), &s.info, &ended).await)
    };
    send_beat = |s| {
        let report = BeatReport { active: &s.keys(), usage: "u", usage_seen: "", carried_out: None };
        outcome(s.names.send_beat(&s.owner.incarnation, report).await)
    };
    claim = |s| {
        let (incarnation, session) = (&s.owner.incarnation, &s.owner.session);
        let (nick, token, user) = (&s.nick, &s.tokens[0], Some(&s.user));
        outcome(s.names.claim(ClaimRequest { incarnation, session, nick, token, user }).await)
    };
    join = |s| {
        let (nick, owner, user, status) = (&s.nick, &s.owner, Some(&s.user), &s.status);
        let (room, entry, moderates) = (&s.room, JoinEntry::New, false);
        outcome(s.names.join(JoinRequest { room, nick, owner, user, status, entry, moderates }).await)
    };
    set_room_rules = |s| outcome(s.names.set_room_rules(&s.room, &RoomRules::default()).await);
    set_role = |s| {
        let target = ModerationTarget::Nick(s.nick.clone());
        outcome(s.names.set_role(&s.room, (target, Some(RoomRole::Owner)), "app").await)
    };
    moderate = |s| {
        let caller = ModerationCaller::Member { nick: &s.nick, owner: &s.owner, may_moderate: false };
        let target = Some(ModerationTarget::Nick(s.nick.clone()));
        let order = ModerationOrder::new(ModerationAction::Invite, target);
        outcome(s.names.moderate(ModerationRequest { room: &s.room, caller, order: &order }).await)
    };
    lead_webhooks = |s| {
        let lead = WebhookLead { process: "p1", lasts: Duration::from_secs(60) };
        outcome(s.names.lead_webhooks(&lead, WANTED, &["w1"]).await)
    };
    reassert = |s| {
        let (incarnation, claims, generation) = (&s.owner.incarnation, [s.claim()], s.generation().await?);
        let batch = ReassertBatch { incarnation, info: &s.info, generation, claims: &claims, last: true };
        outcome(s.names.reassert(batch).await)
    };
    set_status = |s| {
        let member = MemberInfo { nick: "ann".to_owned(), user: None, status: s.status.clone() };
        outcome(s.names.set_status(s.nick.key(), &s.owner, &member, &[s.room.key().clone()]).await)
    };
    publish = |s| s.publish(None).await;
    publish_with_key = |s| s.publish(Some("k1")).await;
    direct = |s| s.direct().await;
    post = |s| s.post(PostTarget::Room(s.room.key().clone())).await;
    post_direct = |s| s.post(PostTarget::Nick(s.nick.key().clone())).await;
    room_messages = |s| outcome(s.names.room_messages(s.room.key(), None, 10).await);
    messages_after = |s| outcome(s.names.messages_after(s.room.key(), 0, 10).await);
    room_typing = |s| outcome(s.backplane.typing(&Target::Room(s.room.clone()), &s.nick, &s.owner.session, false).await);
    typing = |s| outcome(s.backplane.typing(&Target::Nick(s.nick.clone()), &s.nick, &s.owner.session, false).await);
    history = |s| outcome(s.backplane.history(s.room.key(), Range::Newest, LIMIT).await);
    read_after = |s| outcome(s.backplane.read_after(&s.room_stream(), 0, LIMIT).await);
    read_ends = |s| {
        let inbox = StreamId::Inbox(s.owner.session.clone());
        outcome(s.backplane.read_ends(&[s.room_stream(), inbox]).await)
    };
    republish = |s| s.repeated(s.republish()).await;
    take_webhook_events = |s| outcome(s.names.take_webhook_events("p1", "w1", [10, 65_536]).await);
    settle_webhook = |s| {
        let settlement = WebhookSettlement { webhook: "w1", from: 0, to: 1, about: "{}", dead: &[s.logged_event()] };
        outcome(s.names.settle_webhook("p1", &settlement).await)
    };
    replay_webhook = |s| outcome(s.names.replay_webhook("w1", 10).await);
    show_webhooks = |s| outcome(s.names.show_webhooks().await);
    resign_webhooks = |s| outcome(s.names.resign_webhooks("p1").await);
    forget_webhooks = |s| outcome(s.names.forget_webhooks(Duration::from_secs(3600)).await);
    sanction = |s| outcome(s.names.sanction(&s.ban(), None).await);
    sanctions_since = |s| outcome(s.names.sanctions_since(SanctionCursor::from(0), 10).await);
    restore_sanctions = |s| outcome(s.names.restore_sanctions(&[], Some(1)).await);
    announce = |s| outcome(s.names.announce(&s.announcement()).await);
    lift = |s| outcome(s.names.lift(SanctionKind::Ban, &s.ban().id()).await);
    user = |s| outcome(s.names.user(s.nick.key()).await);
    lookup = |s| outcome(s.names.lookup(&s.keys()).await);
    of_user = |s| outcome(s.names.of_user(&s.user).await);
    bound_to = |s| outcome(s.names.bound_to(&s.user).await);
    users = |s| outcome(s.names.users(None, 2).await);
    rooms = |s| outcome(s.names.rooms(None, 2).await);
    room = |s| outcome(s.names.room(s.room.key()).await);
    members = |s| outcome(s.names.members(s.room.key(), None, 2).await);
    gateways = |s| outcome(s.names.gateways().await);
    stats = |s| outcome(s.names.stats().await);
    events = |s| outcome(s.names.events(Some("0-0"), 10).await);
    event_log_ends = |s| outcome(s.names.event_log_ends().await);
    leases = |s| outcome(s.names.leases().await);
    observe = |s| outcome(s.names.observe().await);
    audit = |s| outcome(s.names.audit(&s.owner.incarnation, &[s.claim()]).await);
    audit_of_nothing = |s| outcome(s.names.audit(&s.owner.incarnation, &[]).await);
    lease_summaries = |s| outcome(s.registry.lease_summaries().await);
    owners = |s| outcome(s.registry.owners(&s.keys()).await);
    largest_streams = |s| outcome(s.registry.largest_streams(10).await);
    inventory = |s| {
        let rooms = vec![RoomKey::from_store("other")];
        let held = HeldSession { nick: NickKey::from_store("bob"), owner: s.owner.token(), rooms };
        outcome(s.registry.inventory(&[held]).await)
    };
    is_fit = |s| outcome(s.redis.is_fit().await);
    server = |s| outcome(s.redis.server().await);
    vitals = |s| outcome(s.redis.vitals().await);
    sample_keys = |s| outcome(s.redis.sample_keys().await);
    read = |s| outcome(s.names.read(&s.owner.session, 1).await);
    confirm = |s| outcome(s.names.confirm(&s.owner.session, &s.tokens[0]).await);
    order_entry = |s| outcome(s.names.order_entry(s.nick.key(), &s.room).await);
    renamed = |s| outcome(s.names.renamed(s.nick.key()).await);
    drain = |s| outcome(s.names.drain(&s.owner.incarnation).await);
    beat_with_orders = |s| outcome(s.names.beat(&s.owner.incarnation, &[]).await);
    detach = |s| outcome(s.names.detach(&s.nick, &s.owner, HOLD).await);
    resume = |s| {
        let (session, presented, user) = (s.owner.session.clone(), s.tokens[0].clone(), Some(s.user.clone()));
        let ticket = ResumeTicket { session, presented, user };
        outcome(s.names.resume(&s.owner.incarnation, &ticket, &s.nick, &s.tokens[1]).await)
    };
    kick = |s| outcome(s.names.kick(s.nick.key()).await);
    leave = |s| {
        let (nick, owner, reason, intent) = (&s.nick, &s.owner, LeftReason::Left, LeaveIntent::ForGood);
        outcome(s.names.leave(LeaveRequest { room: &s.room, nick, owner, reason, intent }).await)
    };
    delete_messages = |s| outcome(s.names.delete_messages(s.room.key(), NonZeroU64::new(1)).await);
    end_room = |s| outcome(s.names.end_room(&s.room).await);
    expire_detached = |s| outcome(s.names.expire_detached(&s.nick, &s.owner, OfflineReason::Banned).await);
    release = |s| outcome(s.names.release(&s.nick, &s.owner, ReleaseCause::Offline(OfflineReason::Kicked)).await);
    set_lease = |s| outcome(s.names.set_lease(&s.owner.incarnation, LeaseTransition::Draining).await);
    fence = |s| outcome(s.names.fence(&s.owner.incarnation, 2).await);
    reap = |s| outcome(s.names.reap(&s.owner.incarnation, 100).await);
}
