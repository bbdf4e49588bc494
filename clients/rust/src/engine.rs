//! The surroundings of the session machine: feeds its inputs, and performs its effects in order. It ends when the last
//! handle is dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use crate::cores::{RoomCore, lock};
use crate::error::ParleyError;
use crate::events::{DirectEvent, Message, RoomEvent, State};
use crate::handle::{Handle, HandleCommand, SharedView};
use crate::link::{Link, LinkOptions};
use crate::machine::{CallId, Input, Machine, SessionEffect};
use crate::sign_in::{TokenAnswer, TokenOptions, TokenQuestion, TokenSource};
use crate::storage::{SavedSession, Storage};
use crate::wire::{ClientRequest, INBOX, fold};

/// Maximum time until changed positions are stored.
const SAVE: Duration = Duration::from_millis(200);

/// A session machine with its connection, storage and callers.
pub(crate) struct Engine {
    urls: Vec<String>,
    options: LinkOptions,
    machine: Machine,
    begin: Instant,
    link: Option<Link>,
    token_source: Option<TokenSource>,
    question: Option<TokenQuestion>,
    storage: Option<Box<dyn Storage>>,
    save_at: Option<Instant>,
    commands: mpsc::UnboundedReceiver<HandleCommand>,
    answers: HashMap<CallId, oneshot::Sender<Result<Value, ParleyError>>>,
    shared: Arc<Mutex<SharedView>>,
    inputs: VecDeque<Input>,
}

impl Engine {
    pub(crate) fn new(
        (urls, options): (Vec<String>, LinkOptions),
        (nick, tokens): (String, TokenOptions),
        mut saved: SavedSession,
        storage: Option<Box<dyn Storage>>,
    ) -> (Self, Arc<Handle>) {
        let (sender, commands) = mpsc::unbounded_channel();
        let shared = SharedView::new(nick.clone(), std::mem::take(&mut saved.read));
        let engine = Self {
            machine: Machine::new(nick, urls.len(), saved).with_user_token(tokens.token, tokens.source.is_some()),
            urls,
            options,
            begin: Instant::now(),
            link: None,
            token_source: tokens.source,
            question: None,
            storage,
            save_at: None,
            commands,
            answers: HashMap::new(),
            shared: shared.clone(),
            inputs: VecDeque::new(),
        };
        (engine, Handle::new(sender, shared))
    }

    /// Runs until the last handle is dropped.
    pub(crate) async fn run(mut self) {
        self.input(Input::Start);
        loop {
            let tick_at = self.machine.next_at().map(|due| self.begin + due);
            tokio::select! {
                command = self.commands.recv() => match command {
                    Some(command) => self.command(command),
                    None => break,
                },
                input = next_input(&mut self.link) => {
                    if matches!(input, Input::Closed(_) | Input::Failed(_)) {
                        self.link = None;
                    }
                    self.input(input);
                }
                answer = next_answer(&mut self.question) => {
                    self.question = None;
                    self.input(Input::Token(answer));
                }
                () = until(tick_at) => self.input(Input::Tick),
                () = until(self.save_at) => self.save(),
            }
        }
        self.save();
    }

    fn command(&mut self, command: HandleCommand) {
        match command {
            HandleCommand::Call(id, request, answer) => {
                if request == ClientRequest::Bye {
                    self.release_feeds();
                }
                self.answers.insert(id, answer);
                self.input(Input::Call(id, request));
            }
            HandleCommand::Abort(id) => {
                self.answers.remove(&id);
                self.input(Input::Abort(id));
            }
            HandleCommand::Notify(request) => self.input(Input::Notify(request)),
            HandleCommand::Handled => self.save_soon(),
            HandleCommand::Wake => self.input(Input::Wake),
            HandleCommand::Relieved(stream) => {
                if stream != INBOX || !self.is_inbox_paused() {
                    self.input(Input::Unpause(stream));
                }
            }
        }
    }

    /// Counts the events in hand as handled: the application ends the session deliberately.
    fn release_feeds(&self) {
        let view = lock(&self.shared);
        view.rooms.values().for_each(|room| room.feed.release());
        view.directs.values().for_each(|direct| direct.feed.release());
        view.inbox.release();
    }

    fn is_inbox_paused(&self) -> bool {
        let view = lock(&self.shared);
        view.inbox.is_paused() || view.directs.values().any(|direct| direct.feed.is_paused())
    }

    /// Gives an input to the machine, and then those that its effects cause.
    fn input(&mut self, input: Input) {
        self.inputs.push_back(input);
        while let Some(input) = self.inputs.pop_front() {
            for effect in self.machine.step(input, self.begin.elapsed(), rand::random()) {
                self.perform(effect);
            }
        }
    }

    fn perform(&mut self, effect: SessionEffect) {
        match effect {
            SessionEffect::Connect(address) => {
                let url = self.urls.get(address).cloned();
                self.link = url.map(|url| Link::open(url, self.options.clone()));
            }
            SessionEffect::Drop => {
                self.link = None;
                self.question = None;
            }
            SessionEffect::AskToken => self.question = self.token_source.clone().map(TokenQuestion::ask),
            SessionEffect::Transmit(frame) => {
                if let Some(link) = &self.link {
                    link.transmit(frame);
                }
            }
            SessionEffect::Save { at_once: true } => self.save(),
            SessionEffect::Save { at_once: false } => self.save_soon(),
            SessionEffect::Answer(id, outcome) => {
                if let Some(answer) = self.answers.remove(&id) {
                    // An error: the caller has just stopped waiting.
                    let _ = answer.send(outcome);
                }
            }
            SessionEffect::ChangeState(state) => self.change_state(&state),
            SessionEffect::ChangeNick(nick) => lock(&self.shared).nick = nick,
            SessionEffect::Announce(announcement) => {
                for feed in lock(&self.shared).announcement_feeds.iter().filter_map(Weak::upgrade) {
                    feed.push(announcement.clone());
                }
            }
            SessionEffect::OpenRoom { key, name, seq } => {
                let mut view = lock(&self.shared);
                let core = RoomCore::new(key.clone(), name.clone(), seq, view.read.get(&key).copied());
                view.ended_rooms.remove(&key);
                view.rooms.insert(key, core);
                for feed in view.join_feeds.iter().filter_map(Weak::upgrade) {
                    feed.push(name.clone());
                }
            }
            SessionEffect::CloseRoom(key) => {
                let mut view = lock(&self.shared);
                if let Some(room) = view.rooms.remove(&key) {
                    room.feed.close();
                    view.ended_rooms.insert(key, room);
                }
            }
            SessionEffect::Members(key, members) => {
                if let Some(room) = self.room(&key) {
                    room.replace_members(members);
                }
            }
            SessionEffect::Deliver(stream, event) if stream == INBOX => self.deliver_direct(event),
            SessionEffect::Deliver(key, event) => {
                if self.room(&key).is_some_and(|room| room.deliver(event)) {
                    self.inputs.push_back(Input::Pause(key));
                }
            }
        }
    }

    fn room(&self, key: &str) -> Option<Arc<RoomCore>> {
        lock(&self.shared).rooms.get(key).cloned()
    }

    fn deliver_direct(&mut self, event: RoomEvent) {
        let view = lock(&self.shared);
        let direct = |nick: &str| view.directs.get(&fold(nick));
        let mut pauses = false;
        match event {
            RoomEvent::Message(Message { repeated: true, .. }) | RoomEvent::Members(_) => {}
            RoomEvent::Message(message) => {
                let other = if message.own && message.seq.is_none() { &message.to } else { &message.from };
                // An answer to the name of an application would reach a user.
                if let Some(direct) = direct(other).filter(|_| !message.from_api) {
                    pauses |= direct.deliver(DirectEvent::Message(message.clone()));
                }
                if message.seq.is_some() {
                    pauses |= view.inbox.push(DirectEvent::Message(message));
                }
            }
            RoomEvent::Typing { from } => {
                if let Some(direct) = direct(&from) {
                    pauses |= direct.deliver(DirectEvent::Typing { from });
                }
            }
            RoomEvent::Gap { from_seq, to_seq } => {
                for feed in view.directs.values().map(|direct| &direct.feed).chain([&view.inbox]) {
                    pauses |= feed.push(DirectEvent::Gap { from_seq, to_seq });
                }
            }
            RoomEvent::Rewind { seq } => view.directs.values().for_each(|direct| direct.rewind(seq)),
        }
        drop(view);
        if pauses {
            self.inputs.push_back(Input::Pause(INBOX.to_owned()));
        }
    }

    fn change_state(&mut self, state: &State) {
        let mut view = lock(&self.shared);
        view.state = state.clone();
        for feed in view.state_feeds.iter().filter_map(Weak::upgrade) {
            feed.push(state.clone());
            if state.is_final() {
                feed.close();
            }
        }
        for feed in view.join_feeds.iter().filter_map(Weak::upgrade).filter(|_| state.is_final()) {
            feed.close();
        }
        for feed in view.announcement_feeds.iter().filter_map(Weak::upgrade).filter(|_| state.is_final()) {
            feed.close();
        }
        for feed in view.directs.values().map(|direct| &direct.feed).chain([&view.inbox]) {
            if state.is_final() { feed.close() } else { feed.reopen() }
        }
    }

    fn save_soon(&mut self) {
        if self.storage.is_some() && self.save_at.is_none() {
            self.save_at = Some(Instant::now() + SAVE);
        }
    }

    /// Stores the session. Positions are those of the last handled messages.
    fn save(&mut self) {
        self.save_at = None;
        let (Some(storage), Some(token)) = (&mut self.storage, self.machine.token()) else { return };
        let view = lock(&self.shared);
        let handled = |key: &str, seq: u64| match key {
            INBOX => {
                let feeds = view.directs.values().map(|direct| &direct.feed).chain([&view.inbox]);
                feeds.fold(seq, |seq, feed| feed.handled(seq))
            }
            key => {
                let room = view.rooms.get(key).or_else(|| view.ended_rooms.get(key));
                room.map_or(seq, |room| room.feed.handled(seq))
            }
        };
        let positions = self.machine.positions(handled);
        let saved = SavedSession { token: Some(token.to_owned()), positions, read: view.read.clone() };
        drop(view);
        let saved = serde_json::to_string(&saved).map_err(Into::into).and_then(|text| storage.save(&text));
        if let Err(error) = saved {
            tracing::warn!(%error, "session not stored, continuing in memory");
            self.storage = None;
        }
    }
}

/// Waits for an input of the connection, forever without one.
async fn next_input(link: &mut Option<Link>) -> Input {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}

/// Waits for the answer to a question, forever without one.
async fn next_answer(question: &mut Option<TokenQuestion>) -> Option<TokenAnswer> {
    match question {
        Some(question) => question.answer().await,
        None => std::future::pending().await,
    }
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}
