//! The way to a registry: proxies, the authorities that vouch for it, and the certificate that we show.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::registries::Certificates;

const CONNECT: Duration = Duration::from_secs(30);
const REDIRECTS: usize = 10;
const AGENT: &str = concat!("sysctr/", env!("CARGO_PKG_VERSION"));

/// Whom we believe to be the registry, and for how long it may keep silent.
#[derive(Clone)]
pub struct Trust {
    /// Everybody.
    pub insecure: bool,
    /// Between two pieces of an answer.
    pub idle: Duration,
    /// The files for this registry.
    pub certificates: Certificates,
}

/// What talks to a registry. The proxies are those of the environment; this machine needs none.
pub fn client(host: &str, trust: &Trust) -> Result<reqwest::Client> {
    // a second installation fails, and leaves the first in force
    let _ = rustls::crypto::ring::default_provider().install_default();
    let insecure = trust.insecure;
    let redirects = reqwest::redirect::Policy::custom(move |attempt| {
        let from_tls = attempt.previous().last().is_some_and(|url| url.scheme() == "https");
        if attempt.previous().len() > REDIRECTS {
            attempt.error("it redirects in a circle")
        } else if from_tls && attempt.url().scheme() != "https" && !insecure {
            attempt.error("it redirects to an address without TLS")
        } else {
            attempt.follow()
        }
    });
    let mut builder = reqwest::Client::builder()
        .user_agent(AGENT)
        .connect_timeout(CONNECT)
        .read_timeout(trust.idle)
        .redirect(redirects)
        .tls_danger_accept_invalid_certs(insecure);
    if is_loopback(host) {
        builder = builder.no_proxy();
    }
    let Certificates { authorities, identity, folder } = &trust.certificates;
    for authority in authorities {
        let certificates = reqwest::Certificate::from_pem_bundle(authority);
        let certificates = certificates.with_context(|| format!("reading the authorities in {}", folder.display()))?;
        builder = builder.tls_certs_merge(certificates);
    }
    if let Some(identity) = identity {
        let identity = reqwest::Identity::from_pem(identity);
        let identity = identity.with_context(|| format!("reading the client certificate in {}", folder.display()))?;
        builder = builder.identity(identity);
    }
    builder.build().context("preparing TLS")
}

/// `localhost`, 127.0.0.0/8 or `[::1]`, with or without a port.
pub fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<std::net::IpAddr>();
    name == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_talked_to_without_tls() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.example.org", "128.0.0.1:5000", "reg.io", "127.0.0.1.example.org", "10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
