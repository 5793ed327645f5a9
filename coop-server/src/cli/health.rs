//! Asking a running server whether it is ready, as a container's probe does.

use super::Fault;
use crate::config::Config;
use http::Uri;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long the whole question may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Fails unless the server says that it is ready.
pub(super) async fn ask(config: &Config, url: Option<&str>) -> Result<(), Fault> {
    let (authority, path) = match url {
        Some(url) => place(url).map_err(|words| Fault::Usage(format!("--url: {words}")))?,
        None => (reachable(config.listen)?.to_string(), "/ready".to_owned()),
    };
    let answered = timeout(PATIENCE, status(&authority, &path)).await;
    let answered = answered.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
    match answered {
        Ok(line) if line.split(' ').nth(1) == Some("200") => Ok(()),
        Ok(line) => Err(Fault::Running(format!("http://{authority} is not ready: {line}"))),
        Err(error) => Err(Fault::Running(format!("http://{authority} does not answer: {error}"))),
    }
}

/// The host with its port, and the path of the question.
fn place(url: &str) -> Result<(String, String), &'static str> {
    let uri: Uri = url
        .parse()
        .map_err(|_| "this is not an address such as http://127.0.0.1:8000")?;
    if uri.scheme_str() != Some("http") {
        return Err("only http is spoken here");
    }
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
    let host = authority.ok_or("the host is missing, or is more than that")?;
    let port = host.port_u16().unwrap_or(80);
    Ok((
        format!("{}:{port}", host.host()),
        format!("{}/ready", uri.path().trim_end_matches('/')),
    ))
}

/// Where a server that listens here can be asked from the same machine.
fn reachable(listen: SocketAddr) -> Result<SocketAddr, Fault> {
    if listen.port() == 0 {
        return Err(Fault::Usage("--listen says no port; --url can".to_owned()));
    }
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    Ok((ip, listen.port()).into())
}

/// The first line of the answer.
async fn status(authority: &str, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(authority).await?;
    let question = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(64 * 1024).read_to_end(&mut answer).await?;
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    Ok(String::from_utf8_lossy(line).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        let found = |url| place(url).ok();
        let pair = |host: &str, path: &str| Some((host.to_owned(), path.to_owned()));
        assert_eq!(found("http://127.0.0.1:8000"), pair("127.0.0.1:8000", "/ready"));
        assert_eq!(found("http://[::1]:8000/chat/"), pair("[::1]:8000", "/chat/ready"));
        assert_eq!(found("http://chat.example"), pair("chat.example:80", "/ready"));
        for bad in [
            "https://chat.example",
            "chat.example",
            "http://user:word@chat.example",
            "/x",
            "",
        ] {
            assert_eq!(found(bad), None, "{bad}");
        }
        let at = |listen: &str| reachable(listen.parse().unwrap()).ok().map(|at| at.to_string());
        assert_eq!(at("0.0.0.0:80").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(at("[::]:80").as_deref(), Some("[::1]:80"));
        assert_eq!(at("127.0.0.1:0"), None);
    }
}
