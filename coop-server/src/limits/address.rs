//! Where a request comes from: the peer of its connection, or what a proxy that the operator trusts says.
//!
//! It opens nothing and looks no name up.

use http::{Extensions, HeaderMap};
use std::net::{IpAddr, Ipv6Addr};

/// The address at the other end of a request's connection. [`serve`](crate::serve()) puts it into the extensions of
/// every request; an application that mounts the [`Api`](crate::Api) in a server of its own should do the same, because
/// without it nothing is counted by address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

/// The header to which each proxy appends whom it speaks for.
const FORWARDED_FOR: &str = "x-forwarded-for";
/// So many proxies in a row are believed.
const MAX_HOPS: usize = 16;

/// A block of addresses: those that share so many leading bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    bits: u128,
    prefix: u32,
}

/// The proxies whose word on an address is taken.
#[derive(Debug, Default)]
pub(crate) struct Proxies(Vec<Block>);

impl Proxies {
    /// From `ADDRESS` or `ADDRESS/PREFIX`.
    ///
    /// # Errors
    /// The first that is neither.
    pub(crate) fn new(blocks: Vec<String>) -> Result<Self, String> {
        let read = |text: String| block(text.trim()).ok_or(text);
        blocks.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    pub(super) fn trust(&self, address: IpAddr) -> bool {
        let bits = bits(address);
        self.0.iter().any(|block| same(bits, block.bits, block.prefix))
    }
}

fn block(text: &str) -> Option<Block> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u32>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let (width, before) = if address.is_ipv4() { (32, 96) } else { (128, 0) };
    let prefix = prefix.unwrap_or(width);
    let bits = bits(address);
    (prefix <= width).then_some(Block {
        bits,
        prefix: prefix + before,
    })
}

/// Every address as one of IPv6.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn same(one: u128, other: u128, prefix: u32) -> bool {
    (one ^ other).checked_shr(128 - prefix).unwrap_or(0) == 0
}

/// Who is to be counted for a request, if anything is known: an address, or for IPv6 its /64, of which whoever has one
/// has all.
///
/// From the last proxy to the first, each trusted one says who came before it; the first that is not trusted is the
/// client, whatever it claims.
pub(crate) fn client(extensions: &Extensions, headers: &HeaderMap, proxies: &Proxies) -> Option<IpAddr> {
    let ClientAddr(mut address) = *extensions.get::<ClientAddr>()?;
    let claims = headers.get_all(FORWARDED_FOR).iter().rev();
    let claims = claims.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    for claim in claims.take(MAX_HOPS) {
        if !proxies.trust(address) {
            break;
        }
        let Some(claimed) = std::str::from_utf8(claim).ok().and_then(claimed) else {
            break;
        };
        address = claimed;
    }
    Some(counted(address))
}

/// An address as proxies write it, perhaps with a port.
fn claimed(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    let bare = bare.map_or(text, |(inside, _)| inside);
    bare.parse().ok().or_else(with_port)
}

/// What is counted of an address: for IPv6 its /64, of which whoever has one has all.
pub(super) fn counted(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn who(peer: &str, lines: &[&'static str], proxies: &[&str]) -> String {
        let mut extensions = Extensions::new();
        extensions.insert(ClientAddr(peer.parse().unwrap()));
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let proxies = Proxies::new(proxies.iter().map(ToString::to_string).collect()).unwrap();
        client(&extensions, &headers, &proxies).unwrap().to_string()
    }

    #[test]
    fn only_trusted_proxies_are_believed() {
        let claim = &["1.2.3.4"][..];
        assert_eq!(who("10.0.0.1", claim, &[]), "10.0.0.1");
        assert_eq!(who("10.0.0.1", claim, &["10.0.0.2"]), "10.0.0.1");
        assert_eq!(who("10.0.0.1", claim, &["10.0.0.0/8"]), "1.2.3.4");
        assert_eq!(who("10.0.0.1", &[], &["10.0.0.0/8"]), "10.0.0.1");
        assert_eq!(who("::ffff:10.0.0.1", claim, &["10.0.0.0/8"]), "1.2.3.4");
        assert_eq!(who("10.0.0.1", claim, &["0.0.0.0/0"]), "1.2.3.4");
        assert_eq!(who("fd00::1", claim, &["fd00::/8"]), "1.2.3.4");
        assert_eq!(who("fd00::1", claim, &["0.0.0.0/0"]), "fd00::");
    }

    #[test]
    fn what_the_client_itself_claims_is_not() {
        let proxies = &["10.0.0.0/8"][..];
        assert_eq!(who("10.0.0.1", &["9.9.9.9, 1.2.3.4"], proxies), "1.2.3.4");
        assert_eq!(who("10.0.0.1", &["9.9.9.9", "1.2.3.4,10.0.0.7"], proxies), "1.2.3.4");
        assert_eq!(who("10.0.0.1", &["9.9.9.9, nonsense"], proxies), "10.0.0.1");
        assert_eq!(who("10.0.0.1", &["1.2.3.4:5678"], proxies), "1.2.3.4");
        assert_eq!(who("10.0.0.1", &["[2001:db8:0:1:2::3]:80"], proxies), "2001:db8:0:1::");
    }

    #[test]
    fn a_network_of_one_is_one() {
        assert_eq!(who("2001:db8:1:2:3:4:5:6", &[], &[]), "2001:db8:1:2::");
        assert_eq!(who("::ffff:1.2.3.4", &[], &[]), "1.2.3.4");
        for bad in [
            "",
            "x",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0/8",
            "10.0.0.0/8/8",
        ] {
            assert_eq!(Proxies::new(vec![bad.to_owned()]).unwrap_err(), bad);
        }
    }
}
