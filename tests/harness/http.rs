//! HTTP for tests: one request per connection, with a JSON or text response.
//!
//! Not a client library, because tests also send requests that a library would refuse.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Time limit for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpResponse {
    /// The status code.
    pub status: u16,
    /// The header block, without the status line.
    pub headers: String,
    /// The body as text.
    pub body: String,
}

impl HttpResponse {
    /// Returns the body as JSON.
    ///
    /// # Panics
    /// If the body is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {}", self.body))
    }

    /// Returns the value of a header; the name is case-insensitive.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut fields = self.headers.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(field, value)| field.eq_ignore_ascii_case(name).then(|| value.trim()))
    }
}

/// Sends a GET request.
///
/// # Errors
/// A description of the failure.
pub async fn get(address: SocketAddr, path: &str) -> Result<HttpResponse, String> {
    exchange(address, get_request(address, path).as_bytes()).await
}

fn get_request(address: SocketAddr, path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
}

/// Sends a POST request with a JSON body.
///
/// # Errors
/// A description of the failure.
pub async fn post(address: SocketAddr, path: &str, body: &Value) -> Result<HttpResponse, String> {
    let body = body.to_string();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    let length = body.len();
    let request = format!("{head}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}");
    exchange(address, request.as_bytes()).await
}

/// Sends a GET request from an address of this machine, as another client.
///
/// # Errors
/// A description of the failure.
pub async fn get_from(source: Ipv4Addr, address: SocketAddr, path: &str) -> Result<HttpResponse, String> {
    let socket = TcpSocket::new_v4().map_err(|error| error.to_string())?;
    socket.bind((source, 0).into()).map_err(|error| error.to_string())?;
    exchange_over(socket.connect(address), address, get_request(address, path).as_bytes()).await
}

/// Writes the bytes unchanged and reads one response.
///
/// # Errors
/// A description of the failure.
pub async fn exchange(address: SocketAddr, request: &[u8]) -> Result<HttpResponse, String> {
    exchange_over(TcpStream::connect(address), address, request).await
}

async fn exchange_over(
    connection: impl Future<Output = io::Result<TcpStream>>,
    address: SocketAddr,
    request: &[u8],
) -> Result<HttpResponse, String> {
    let bytes = timeout(RESPONSE_TIMEOUT, async {
        let mut stream = connection.await?;
        stream.write_all(request).await?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await?;
        Ok::<_, io::Error>(bytes)
    });
    let bytes = bytes.await.map_err(|_| format!("{address} did not answer"))?.map_err(|error| error.to_string())?;
    parse(&bytes).ok_or_else(|| format!("not HTTP: {:?}", String::from_utf8_lossy(&bytes)))
}

/// Reads one response; `None` if it is not HTTP.
#[must_use]
pub fn parse(bytes: &[u8]) -> Option<HttpResponse> {
    let text = String::from_utf8_lossy(bytes);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let (status_line, headers) = head.split_once("\r\n").unwrap_or((head, ""));
    let status = status_line.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok()?;
    let mut response = HttpResponse { status, headers: headers.to_owned(), body: body.to_owned() };
    if response.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        response.body = unchunk(body)?;
    }
    Some(response)
}

fn unchunk(mut rest: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(after.get(..size)?);
        rest = after.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parser_reads_plain_and_chunked_responses() {
        let plain = parse(b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\n\r\n{\"a\":1}").expect("HTTP");
        assert_eq!((plain.status, plain.header("retry-after")), (503, Some("2")));
        assert_eq!(plain.json()["a"], 1);
        let chunked = parse(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n");
        assert_eq!(chunked.expect("HTTP").body, "abcde");
        assert_eq!(parse(b"SSH-2.0"), None);
    }
}
