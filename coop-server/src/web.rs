//! The web client: files that lie in this binary, the headers that pages of ours must have, and which addresses lead to it.
//!
//! It knows nothing of what the client does. Where a folder is given the files are read from there each time, for those
//! who work on them.

use crate::reply::{Body, Failure, whole};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_NONE_MATCH, VARY,
};
use http::{HeaderMap, Response, StatusCode};
use sha2::{Digest, Sha256};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A page may load what is ours and nothing else, in no frame, and never make code or markup of a text.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri \
    'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const ISOLATED: HeaderName = HeaderName::from_static("cross-origin-opener-policy");

/// The addresses at which the page is, which finds out by itself what to show.
const PAGES: [&str; 3] = ["/", "/login", "/chat"];

macro_rules! files {
    ($($name:literal $kind:literal),+ $(,)?) => {
        /// Each file's name, type and bytes. The page is the first.
        const FILES: &[(&str, &str, &[u8])] = &[$(($name, $kind, include_bytes!(concat!("../web/", $name)))),+];
    };
}

files! {
    "index.html" "text/html; charset=utf-8",
    "app.css" "text/css; charset=utf-8",
    "icon.svg" "image/svg+xml",
    "app.js" "text/javascript; charset=utf-8",
    "coop.js" "text/javascript; charset=utf-8",
    "dialogs.js" "text/javascript; charset=utf-8",
    "dom.js" "text/javascript; charset=utf-8",
    "highlight.js" "text/javascript; charset=utf-8",
    "icons.js" "text/javascript; charset=utf-8",
    "list.js" "text/javascript; charset=utf-8",
    "md.js" "text/javascript; charset=utf-8",
    "room.js" "text/javascript; charset=utf-8",
    "send.js" "text/javascript; charset=utf-8",
}

/// The client's files, ready to be sent.
#[derive(Debug)]
pub(crate) struct Web {
    files: Vec<File>,
    /// Where they are read from instead.
    folder: Option<PathBuf>,
}

#[derive(Debug)]
struct File {
    name: &'static str,
    kind: &'static str,
    plain: Bytes,
    packed: Bytes,
    /// A hash of what it holds.
    tag: String,
}

impl Web {
    /// # Errors
    /// If there is no memory to pack them.
    pub(crate) fn new(folder: Option<PathBuf>) -> io::Result<Self> {
        let file = |(name, kind, bytes): &(&'static str, &'static str, &'static [u8])| {
            File::new(name, kind, Bytes::from_static(bytes))
        };
        let files = FILES.iter().map(file).collect::<io::Result<_>>()?;
        Ok(Self { files, folder })
    }

    /// What is at an address, if that is one of the client's.
    pub(crate) fn find(&self, path: &str, headers: &HeaderMap) -> Option<Result<Response<Body>, Failure>> {
        let name = if is_page(path) {
            "index.html"
        } else {
            path.strip_prefix('/')?
        };
        let file = self.files.iter().find(|file| file.name == name)?;
        Some(match &self.folder {
            None => Ok(file.response(headers)),
            Some(folder) => file.read_again(folder).map(|file| file.response(headers)),
        })
    }
}

/// Whether the page is at this address: a room's, too.
fn is_page(path: &str) -> bool {
    let room = path.strip_prefix("/chat/");
    let is_id = |room: &str| !room.is_empty() && room.bytes().all(|byte| byte.is_ascii_digit());
    PAGES.contains(&path) || room.is_some_and(is_id)
}

impl File {
    fn new(name: &'static str, kind: &'static str, plain: Bytes) -> io::Result<Self> {
        let mut packer = GzEncoder::new(Vec::new(), Compression::best());
        packer.write_all(&plain)?;
        let hash = Sha256::digest(&plain);
        let tag: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        Ok(Self {
            name,
            kind,
            packed: packer.finish()?.into(),
            plain,
            tag,
        })
    }

    fn read_again(&self, folder: &Path) -> Result<Self, Failure> {
        let bytes =
            std::fs::read(folder.join(self.name)).and_then(|bytes| Self::new(self.name, self.kind, bytes.into()));
        bytes.map_err(|error| {
            tracing::warn!(%error, file = self.name, "a file of the web client could not be read");
            Failure::no_route()
        })
    }

    fn response(&self, headers: &HeaderMap) -> Response<Body> {
        let packs = accepts_gzip(headers);
        // Strong: another encoding is another sequence of bytes.
        let tag = format!("\"{}{}\"", self.tag, if packs { "-gz" } else { "" });
        let known = headers.get(IF_NONE_MATCH).and_then(|tags| tags.to_str().ok());
        let is_known = known.is_some_and(|tags| tags.split(',').any(|known| matches(known.trim(), &tag)));
        let mut response = match (is_known, packs) {
            (true, _) => Response::new(whole(Bytes::new())),
            (false, true) => Response::new(whole(self.packed.clone())),
            (false, false) => Response::new(whole(self.plain.clone())),
        };
        let fixed = HeaderValue::from_static;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, fixed(self.kind));
        headers.insert(CONTENT_SECURITY_POLICY, fixed(POLICY));
        headers.insert(ISOLATED, fixed("same-origin"));
        headers.insert(CACHE_CONTROL, fixed("no-cache"));
        headers.insert(VARY, fixed("Accept-Encoding"));
        if let Ok(tag) = HeaderValue::try_from(tag) {
            headers.insert(ETAG, tag);
        }
        if packs && !is_known {
            headers.insert(CONTENT_ENCODING, fixed("gzip"));
        }
        if is_known {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
        }
        response
    }
}

fn matches(known: &str, tag: &str) -> bool {
    known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag
}

fn accepts_gzip(headers: &HeaderMap) -> bool {
    let lists = headers
        .get_all(ACCEPT_ENCODING)
        .iter()
        .filter_map(|list| list.to_str().ok());
    lists.flat_map(|list| list.split(',')).any(|coding| {
        let mut parts = coding.split(';').map(str::trim);
        let is_gzip = parts.next().is_some_and(|name| name.eq_ignore_ascii_case("gzip"));
        let is_refused = parts.any(|part| {
            part.strip_prefix("q=")
                .is_some_and(|q| q.trim_matches(['0', '.']).is_empty())
        });
        is_gzip && !is_refused
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn which_addresses_are_the_pages() {
        for page in ["/", "/login", "/chat", "/chat/5", "/chat/123456789"] {
            assert!(is_page(page), "{page}");
        }
        for none in [
            "",
            "/chat/",
            "/chat/x",
            "/chat/5/6",
            "/chat/-1",
            "/login/",
            "/index",
            "/chats",
        ] {
            assert!(!is_page(none), "{none}");
        }
    }

    #[test]
    fn who_takes_packed_files() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(value));
            accepts_gzip(&headers)
        };
        assert!(accepts("gzip") && accepts("br, GZIP;q=0.5") && accepts("deflate,gzip;q=1.0"));
        assert!(!accepts("br") && !accepts("gzip;q=0") && !accepts("gzip; q=0.0") && !accepts(""));
        assert!(!accepts_gzip(&HeaderMap::new()));
    }

    #[test]
    fn every_file_of_the_folder_is_here_and_all_are_small() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        let names = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name());
        let names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        for name in &names {
            assert!(FILES.iter().any(|(known, ..)| known == name), "{name} is not embedded");
        }
        assert_eq!(names.len(), FILES.len());
        let packed: usize = Web::new(None).unwrap().files.iter().map(|file| file.packed.len()).sum();
        assert!(packed < 64 * 1024, "{packed} bytes");
    }
}
