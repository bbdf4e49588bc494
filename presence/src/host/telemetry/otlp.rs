//! Export of message spans to a collector, as OTLP/HTTP with JSON. Only in builds with the feature `otlp`.
//!
//! The trace id of a message is its `msg_id`, a UUID, and the id of its publish span is derived from it. Every gateway
//! computes the same ids, so the spans of a cluster join although gateways send each other no trace context. The
//! OpenTelemetry SDK does batching, retries and encoding. An unreachable collector never blocks a message: spans wait
//! in a bounded queue, a thread sends them, and the outage is logged once.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use async_trait::async_trait;
use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchSpanProcessor, SpanData, SpanProcessor};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;
use uuid::Uuid;

use super::SpansTo;

/// Timeout of one batch.
const ANSWER: Duration = Duration::from_secs(5);
/// Timeout of the last batch, at the end of the program.
const LAST_BATCH: Duration = Duration::from_secs(2);

/// Layer that queues the spans of messages for export. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct Exporter(Arc<BatchSpanProcessor>);

impl Exporter {
    /// Starts the sending thread.
    ///
    /// # Errors
    /// The address is invalid.
    pub(super) fn start(to: &SpansTo) -> anyhow::Result<Self> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpJson)
            .with_endpoint(&to.endpoint)
            .with_http_client(Post::default())
            .with_timeout(ANSWER)
            .build()
            .with_context(|| format!("otlp.endpoint = {:?}", to.endpoint))?;
        let mut processor = BatchSpanProcessor::builder(exporter).build();
        let node = KeyValue::new("service.instance.id", to.node.clone());
        processor.set_resource(&Resource::builder().with_service_name("parley-gateway").with_attribute(node).build());
        Ok(Self(Arc::new(processor)))
    }

    /// Sends the queued spans, for at most two seconds, and stops.
    pub(super) fn end(&self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_BATCH) {
            tracing::debug!(%error, "last spans not exported");
        }
    }
}

/// Returns true for spans that are exported: those with the `msg_id` of a message.
pub(super) fn is_exported(metadata: &Metadata<'_>) -> bool {
    metadata.is_span() && metadata.fields().field("msg_id").is_some()
}

/// A span between its start and its export, with the fields recorded so far.
#[derive(Debug)]
struct OpenSpan {
    at: SystemTime,
    fields: SpanFields,
}

/// The recorded fields of a span.
#[derive(Debug, Default)]
struct SpanFields {
    message: Option<Uuid>,
    attributes: Vec<KeyValue>,
}

impl Visit for SpanFields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.attributes.push(KeyValue::new(field.name(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "msg_id" {
            self.message = Uuid::try_parse(value).ok();
        }
        self.attributes.push(KeyValue::new(field.name(), value.to_owned()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.attributes.push(KeyValue::new(field.name(), i64::try_from(value).unwrap_or(i64::MAX)));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Exporter {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let Some(span) = context.span(id) else { return };
        let mut fields = SpanFields::default();
        attributes.record(&mut fields);
        span.extensions_mut().insert(OpenSpan { at: SystemTime::now(), fields });
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        let Some(OpenSpan { at, fields }) = span.extensions_mut().remove() else { return };
        let Some(message) = fields.message else { return };
        self.0.on_end(data(span.name(), at, message, fields.attributes));
    }
}

fn data(name: &'static str, start_time: SystemTime, message: Uuid, attributes: Vec<KeyValue>) -> SpanData {
    // The second half of a version 7 UUID is random.
    let (_, published) = message.as_u64_pair();
    let published = SpanId::from(published);
    let (span_kind, id, parent_span_id) = match name {
        "publish" => (SpanKind::Producer, published, SpanId::INVALID),
        _ => (SpanKind::Consumer, SpanId::from(rand::random::<u64>()), published),
    };
    let trace = TraceId::from_bytes(message.into_bytes());
    SpanData {
        span_context: SpanContext::new(trace, id, TraceFlags::SAMPLED, false, TraceState::default()),
        parent_span_id,
        parent_span_is_remote: parent_span_id != SpanId::INVALID,
        span_kind,
        name: name.into(),
        start_time,
        end_time: SystemTime::now(),
        attributes,
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("parley").build(),
    }
}

/// HTTP client of the exporter, used by its thread. Logs the start and the end of an outage of the collector.
#[derive(Debug, Default)]
struct Post {
    is_away: AtomicBool,
}

impl Post {
    fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let agent = ureq::Agent::new_with_config(
            ureq::Agent::config_builder().timeout_global(Some(ANSWER)).http_status_as_error(false).build(),
        );
        let (head, body) = request.into_parts();
        let mut answer = agent.run(Request::from_parts(head, body.to_vec()))?;
        let body = answer.body_mut().read_to_vec()?;
        let (head, _) = answer.into_parts();
        Ok(Response::from_parts(head, body.into()))
    }
}

#[async_trait]
impl HttpClient for Post {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = Self::send(request);
        let failure = match &answer {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        let was_away = self.is_away.swap(failure.is_some(), Ordering::Relaxed);
        match failure {
            Some(reason) if !was_away => tracing::warn!(reason, "spans not exported"),
            None if was_away => tracing::info!("span export restored"),
            _ => {}
        }
        answer
    }
}
