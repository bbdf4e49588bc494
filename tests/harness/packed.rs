//! Packed messages of tests: JSON objects with names to bytes and back, apart from the gateway's own code.
//!
//! [`PackedWire`] is a format. Names and numbers come from `gateway/parley.proto`, through libraries that the
//! gateway does not use. Invariant: [`decode`] panics at a message that the schema does not describe. Knows no socket.

use std::collections::HashMap;
use std::sync::LazyLock;

use protox::prost_reflect::prost::Message as _;
use protox::prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _,
    Value as ProtoValue,
};
use rmpv::Value as PackValue;
use serde_json::{Map, Value, json};

/// The bit of a type that marks a compressed payload.
const COMPRESSED: u16 = 0x8000;
/// A type that stands for no request.
const UNKNOWN_TYPE: u16 = 255;
/// The types of replies.
const REPLIES: std::ops::Range<u16> = 256..512;

/// A format of packed messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PackedWire {
    /// Version 1.
    Json,
    /// Version 2.
    MessagePack,
    /// Version 3.
    Protobuf,
}

impl PackedWire {
    /// All formats, by version.
    pub const ALL: [Self; 3] = [Self::Json, Self::MessagePack, Self::Protobuf];

    /// Returns the version in the header of a TCP frame.
    #[must_use]
    pub fn version(self) -> u8 {
        match self {
            Self::Json => 1,
            Self::MessagePack => 2,
            Self::Protobuf => 3,
        }
    }

    /// Returns the format of a version.
    #[must_use]
    pub fn of_version(version: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|wire| wire.version() == version)
    }
}

/// The schema that the gateway ships.
struct PackedSchema {
    pool: DescriptorPool,
    types: EnumDescriptor,
    numbers: HashMap<String, u32>,
    names: HashMap<u64, String>,
}

static SCHEMA: LazyLock<PackedSchema> = LazyLock::new(|| {
    let folder = crate::repository().join("gateway");
    let files = protox::compile(["parley.proto"], [folder]).expect("a valid schema");
    let pool = DescriptorPool::from_file_descriptor_set(files).expect("a valid schema");
    let mut numbers = HashMap::new();
    for field in pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>()) {
        let known = numbers.insert(field.name().to_owned(), field.number());
        assert!(known.is_none_or(|known| known == field.number()), "{} has two numbers", field.name());
    }
    let names: HashMap<_, _> = numbers.iter().map(|(name, number)| (u64::from(*number), name.clone())).collect();
    assert_eq!(names.len(), numbers.len(), "two fields have one number");
    let types = pool.get_enum_by_name("parley.v1.Type").expect("the types");
    PackedSchema { pool, types, numbers, names }
});

impl PackedSchema {
    /// Returns the number of a request, or of a heartbeat.
    fn request(&self, name: &str) -> u16 {
        let name = name.to_uppercase();
        let mut values = self.types.values();
        let found = values.find(|value| {
            matches!(value.name().split_once('_'), Some(("REQUEST", rest)) if rest == name)
                || value.name() == "CONNECTION_HEARTBEAT" && name == "HEARTBEAT"
        });
        found.map_or(UNKNOWN_TYPE, |value| u16::try_from(value.number()).expect("16 bits"))
    }

    /// Returns the `type` of a number in JSON, and its message.
    fn message(&self, number: u16) -> (String, MessageDescriptor) {
        let value = self.types.get_value(number.into()).unwrap_or_else(|| panic!("type {number} is not described"));
        let (kind, name) = value.name().split_once('_').expect("a kind and a name");
        let message = match kind {
            _ if (288..=296).contains(&number) => "ModerationReply".to_owned(),
            "CONNECTION" => camel_case(kind) + &camel_case(name),
            kind => camel_case(name) + &camel_case(kind),
        };
        let found = self.pool.get_message_by_name(&format!("parley.v1.{message}"));
        (name.to_lowercase(), found.unwrap_or_else(|| panic!("{message} is not described")))
    }
}

/// Returns the fields of the schema whose absence would look like a value.
#[must_use]
pub fn fields_without_presence() -> Vec<String> {
    let fields = SCHEMA.pool.all_messages().flat_map(|message| message.fields().collect::<Vec<_>>());
    let vague = fields.filter(|field| !field.is_list() && !field.supports_presence());
    vague.map(|field| field.full_name().to_owned()).collect()
}

/// Returns the types of the schema with their `type` in JSON, by number.
#[must_use]
pub fn types() -> Vec<(String, u64)> {
    let types = SCHEMA.types.values().filter(|value| value.number() > 0);
    let mut types: Vec<_> = types
        .map(|value| {
            let number = u16::try_from(value.number()).expect("16 bits");
            (SCHEMA.message(number).0, number.into())
        })
        .collect();
    types.sort_by_key(|(_, number)| *number);
    types
}

/// Returns the fields of the schema with their numbers, by number.
#[must_use]
pub fn field_numbers() -> Vec<(String, u64)> {
    let mut fields: Vec<_> = SCHEMA.names.iter().map(|(number, name)| (name.clone(), *number)).collect();
    fields.sort_by_key(|(_, number)| *number);
    fields
}

fn camel_case(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_owned() + &word[1..].to_lowercase()).collect()
}

/// Encodes a request, or a heartbeat, as a packed message. A type without a number gets one that is free.
///
/// # Panics
/// If the format cannot express the object.
#[must_use]
pub fn encode(wire: PackedWire, object: &Value) -> Vec<u8> {
    let mut fields = object.as_object().expect("an object").clone();
    let name = fields.remove("type").unwrap_or_default();
    let number = SCHEMA.request(name.as_str().unwrap_or_default());
    let mut message = number.to_be_bytes().to_vec();
    match wire {
        _ if fields.is_empty() => {}
        PackedWire::Json => message.extend_from_slice(Value::Object(fields).to_string().as_bytes()),
        PackedWire::MessagePack => {
            rmpv::encode::write_value(&mut message, &pack_object(&fields)).expect("a vector accepts every write");
        }
        PackedWire::Protobuf => {
            let kind = if number == UNKNOWN_TYPE { SCHEMA.request("ping") } else { number };
            message.extend_from_slice(&proto_object(&SCHEMA.message(kind).1, &fields).encode_to_vec());
        }
    }
    message
}

/// Returns the positions of a resume as a list: JSON has them under the names of the rooms.
fn positions(since: &Value) -> Value {
    let Some(rooms) = since.as_object().filter(|rooms| !rooms.contains_key("seq")) else { return since.clone() };
    let position = |(room, position): (&String, &Value)| {
        let mut position = position.clone();
        if let Some(fields) = position.as_object_mut() {
            fields.insert("room".to_owned(), json!(room));
        }
        position
    };
    rooms.iter().map(position).collect()
}

fn pack_object(fields: &Map<String, Value>) -> PackValue {
    let known = fields.iter().filter_map(|(name, value)| Some((*SCHEMA.numbers.get(name)?, name, value)));
    let pairs = known.map(|(number, name, value)| {
        let value = match (name.as_str(), value) {
            ("body", body) => pack_body(body),
            ("since", since) => pack_value(&positions(since)),
            (_, value) => pack_value(value),
        };
        (number.into(), value)
    });
    PackValue::Map(pairs.collect())
}

fn pack_value(value: &Value) -> PackValue {
    match value {
        Value::Object(fields) => pack_object(fields),
        Value::Array(items) => PackValue::Array(items.iter().map(pack_value).collect()),
        value => pack_body(value),
    }
}

/// Converts a value with its own names.
fn pack_body(value: &Value) -> PackValue {
    match value {
        Value::Null => PackValue::Nil,
        Value::Bool(flag) => (*flag).into(),
        Value::Number(number) => match (number.as_u64(), number.as_i64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.as_f64().expect("a number").into(),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(items) => PackValue::Array(items.iter().map(pack_body).collect()),
        Value::Object(fields) => {
            PackValue::Map(fields.iter().map(|(name, value)| (name.as_str().into(), pack_body(value))).collect())
        }
    }
}

fn proto_object(descriptor: &MessageDescriptor, fields: &Map<String, Value>) -> DynamicMessage {
    let mut message = DynamicMessage::new(descriptor.clone());
    for (name, value) in fields {
        let Some(field) = descriptor.get_field_by_name(name) else { continue };
        let value = match name.as_str() {
            "body" => ProtoValue::Bytes(value.to_string().into_bytes().into()),
            "since" => proto_value(&field, &positions(value)),
            _ => proto_value(&field, value),
        };
        message.try_set_field(&field, value).unwrap_or_else(|error| panic!("{name} in Protobuf: {error}"));
    }
    message
}

fn proto_value(field: &FieldDescriptor, value: &Value) -> ProtoValue {
    match value {
        Value::Bool(flag) => ProtoValue::Bool(*flag),
        Value::Number(number) => ProtoValue::U64(number.as_u64().expect("a number that is not negative")),
        Value::String(text) => ProtoValue::String(text.clone()),
        Value::Array(items) => ProtoValue::List(items.iter().map(|item| proto_value(field, item)).collect()),
        Value::Object(fields) => match field.kind() {
            Kind::Message(descriptor) => ProtoValue::Message(proto_object(&descriptor, fields)),
            kind => panic!("{} is {kind:?}, not an object", field.name()),
        },
        Value::Null => panic!("{} is null, which Protobuf does not have", field.name()),
    }
}

/// Decodes a packed message of the gateway to the object that JSON would have.
///
/// # Panics
/// If the schema does not describe the message.
#[must_use]
pub fn decode(wire: PackedWire, message: &[u8]) -> Value {
    let (number, payload) = message.split_first_chunk().expect("a type");
    let number = u16::from_be_bytes(*number);
    let payload = match number & COMPRESSED {
        0 => payload.to_vec(),
        _ => snap::raw::Decoder::new().decompress_vec(payload).expect("a compressed payload"),
    };
    let number = number & !COMPRESSED;
    let (name, descriptor) = SCHEMA.message(number);
    let mut object = match wire {
        _ if payload.is_empty() => json!({}),
        PackedWire::Json => serde_json::from_slice(&payload).expect("a JSON object"),
        PackedWire::MessagePack => {
            let mut rest = payload.as_slice();
            let value = rmpv::decode::read_value(&mut rest).expect("a value of MessagePack");
            assert!(rest.is_empty(), "bytes follow the payload");
            named_object(value)
        }
        PackedWire::Protobuf => {
            proto_named(&DynamicMessage::decode(descriptor.clone(), payload.as_slice()).expect("a message"))
        }
    };
    let fields = object.as_object_mut().expect("an object");
    if wire == PackedWire::Json {
        assert!(fields.get("type").is_none_or(|written| *written == name), "{name}: {fields:?}");
    }
    fields.insert("type".to_owned(), json!(name));
    // Absent values that JSON writes: no cursor follows the last page, and Protobuf has no empty list.
    if wire != PackedWire::Json && REPLIES.contains(&number) {
        for field in descriptor.fields() {
            if field.name() == "next_cursor" {
                fields.entry(field.name()).or_insert(Value::Null);
            } else if field.is_list() && wire == PackedWire::Protobuf {
                fields.entry(field.name()).or_insert(json!([]));
            }
        }
    }
    object
}

fn named_object(value: PackValue) -> Value {
    let PackValue::Map(pairs) = value else { panic!("not a map: {value}") };
    let mut fields = Map::new();
    for (key, value) in pairs {
        let name = key.as_u64().and_then(|number| SCHEMA.names.get(&number));
        let name = name.unwrap_or_else(|| panic!("key {key} is not described"));
        let value = match value {
            PackValue::Binary(bytes) if name == "msg_id" => json!(uuid_text(&bytes)),
            value if name == "body" => named_body(value),
            value => named_value(value),
        };
        assert!(fields.insert(name.clone(), value).is_none(), "{name} is given twice");
    }
    Value::Object(fields)
}

fn named_value(value: PackValue) -> Value {
    match value {
        PackValue::Map(_) => named_object(value),
        PackValue::Array(items) => items.into_iter().map(named_value).collect(),
        value => named_body(value),
    }
}

/// Converts a value with its own names.
fn named_body(value: PackValue) -> Value {
    match value {
        PackValue::Nil => Value::Null,
        PackValue::Boolean(flag) => json!(flag),
        PackValue::Integer(number) => match number.as_u64() {
            Some(number) => json!(number),
            None => json!(number.as_i64()),
        },
        PackValue::F32(number) => json!(number),
        PackValue::F64(number) => json!(number),
        PackValue::String(text) => json!(text.into_str().expect("UTF-8")),
        PackValue::Array(items) => items.into_iter().map(named_body).collect(),
        PackValue::Map(pairs) => {
            let named = |(key, value): (PackValue, _)| (key.as_str().expect("a name").to_owned(), named_body(value));
            Value::Object(pairs.into_iter().map(named).collect())
        }
        value => panic!("not in JSON: {value}"),
    }
}

fn proto_named(message: &DynamicMessage) -> Value {
    assert_eq!(
        message.unknown_fields().count(),
        0,
        "{} has fields that are not described",
        message.descriptor().name()
    );
    let fields = message.fields().map(|(field, value)| {
        let value = match value {
            ProtoValue::Bytes(bytes) if field.name() == "msg_id" => json!(uuid_text(bytes)),
            ProtoValue::Bytes(bytes) => serde_json::from_slice(bytes).expect("a JSON text"),
            value => proto_plain(value),
        };
        (field.name().to_owned(), value)
    });
    Value::Object(fields.collect())
}

fn proto_plain(value: &ProtoValue) -> Value {
    match value {
        ProtoValue::Bool(flag) => json!(flag),
        ProtoValue::U64(number) => json!(number),
        ProtoValue::String(text) => json!(text),
        ProtoValue::List(items) => items.iter().map(proto_plain).collect(),
        ProtoValue::Message(message) => proto_named(message),
        value => panic!("not in the schema: {value:?}"),
    }
}

/// Writes a UUID as JSON has it. Another id is its text.
fn uuid_text(bytes: &[u8]) -> String {
    if bytes.len() != 16 {
        return String::from_utf8(bytes.to_vec()).expect("UTF-8");
    }
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Returns a packed message with a compressed payload.
#[must_use]
pub fn compressed(message: &[u8]) -> Vec<u8> {
    let (number, payload) = message.split_first_chunk().expect("a type");
    let mut out = (u16::from_be_bytes(*number) | COMPRESSED).to_be_bytes().to_vec();
    out.extend(snap::raw::Encoder::new().compress_vec(payload).expect("a payload of at most 4 GiB"));
    out
}

/// Returns a TCP frame with this packed message.
#[must_use]
pub fn frame(wire: PackedWire, message: &[u8]) -> Vec<u8> {
    let payload_bytes = u32::try_from(message.len().saturating_sub(2)).expect("a payload of at most 4 GiB");
    let mut frame = vec![0xCA, 0xFE, 0xBA, 0xBE, wire.version()];
    frame.extend_from_slice(&payload_bytes.to_be_bytes());
    frame.extend_from_slice(message);
    frame
}
