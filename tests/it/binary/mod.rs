//! Binary frames and binary WebSockets against real gateways: MessagePack, Protobuf and JSON, beside text.

mod chat;
mod framing;

use std::time::Duration;

use harness::packed::PackedWire;
use harness::{Cluster, WsClient};

const PATIENCE: Duration = Duration::from_secs(20);

/// A way to connect: a name for failures, the format, and true for frames on the TCP port.
const WAYS: [(&str, PackedWire, bool); 5] = [
    ("mpws", PackedWire::MessagePack, false),
    ("pbws", PackedWire::Protobuf, false),
    ("jsontcp", PackedWire::Json, true),
    ("mptcp", PackedWire::MessagePack, true),
    ("pbtcp", PackedWire::Protobuf, true),
];

/// Connects to a gateway of the cluster.
async fn connect(cluster: &Cluster, gateway: usize, (_, wire, is_tcp): (&str, PackedWire, bool)) -> WsClient {
    let gateway = &cluster.gateways[gateway];
    match is_tcp {
        true => WsClient::connect_frames(gateway.tcp(), wire).await,
        false => WsClient::connect_packed(gateway.ws(), wire).await,
    }
}
