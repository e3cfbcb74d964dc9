//! From a node's name to the addresses where it may be dialled.
//!
//! A node name is `name@host`. All nodes of a cluster have names of one form: with short names
//! the host has no dot, with long names it has one or is an IP address; OTP refuses to dial
//! across (`inet_tcp_dist.erl`, `check_node`), because a node would be known by two names. The
//! port comes from the host's EPMD, or is the same for all nodes (OTP's `-erl_epmd_port`), or
//! stands in a list.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use thiserror::Error;
use tokio::time::timeout;

use crate::distribution::epmd::{Epmd, EpmdError};
use crate::limits;
use crate::wire::handshake::is_node_name;

/// Characters of what is no node name that an error shows.
const SHOWN: usize = 255;

/// What is wrong with a node name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NameError {
    /// It is no node name.
    #[error(
        "{0:?} is no node name: it has the form name@host, without spaces and control \
         characters, at most 255 bytes"
    )]
    Malformed(String),
    /// Our name is long, the other one is short.
    #[error(
        "{0} has a short host name, but this node uses long names: give the full host name with \
         its domain, or start this node with a short name"
    )]
    NotLong(Arc<str>),
    /// Our name is short, the other one is long.
    #[error(
        "{0} has a host name with a dot, but this node uses short names: start both nodes with \
         names of one form (erl -sname or -name)"
    )]
    NotShort(Arc<str>),
    /// TLS needs a host name or an IP address.
    #[error("the host of {0} is neither a DNS name nor an IP address, as TLS needs it")]
    HostIsNoServerName(Arc<str>),
}

/// A node name in its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeName<'a> {
    /// What EPMD knows.
    pub name: &'a str,
    /// Where the node is.
    pub host: &'a str,
}

/// Whether hosts in node names have a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameForm {
    /// `-sname`: no dot in the host.
    Short,
    /// `-name`: a dot, or an IP address.
    Long,
}

impl<'a> NodeName<'a> {
    /// Takes a name apart.
    ///
    /// # Errors
    /// [`NameError::Malformed`].
    pub fn parse(node: &'a str) -> Result<Self, NameError> {
        node.split_once('@')
            .filter(|_| is_node_name(node.as_bytes()))
            .map(|(name, host)| NodeName { name, host })
            .ok_or_else(|| NameError::Malformed(node.chars().take(SHOWN).collect()))
    }

    /// The form of the name.
    pub fn form(&self) -> NameForm {
        match self.host.contains('.') || self.host.parse::<IpAddr>().is_ok() {
            true => NameForm::Long,
            false => NameForm::Short,
        }
    }

    /// Whether nodes with names of form `own` may talk to this one.
    ///
    /// # Errors
    /// [`NameError::NotLong`] or [`NameError::NotShort`].
    pub fn check_form(&self, own: NameForm) -> Result<(), NameError> {
        let node = || format!("{}@{}", self.name, self.host).into();
        match (own, self.form()) {
            (NameForm::Long, NameForm::Short) => Err(NameError::NotLong(node())),
            (NameForm::Short, NameForm::Long) => Err(NameError::NotShort(node())),
            _ => Ok(()),
        }
    }
}

/// Where a node may be dialled; tried in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(Vec<SocketAddr>);

impl Address {
    /// The addresses to try.
    pub fn candidates(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        self.0.iter().copied()
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Self {
        Address(vec![addr])
    }
}

/// Why a node was not found.
#[derive(Debug, Error)]
pub enum ResolveError {
    /// The name cannot be dialled.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The host is not known.
    #[error("the host {host} of a node cannot be resolved: {source}")]
    Host {
        /// The host.
        host: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// No EPMD there.
    #[error(transparent)]
    Epmd(#[from] EpmdError),
    /// EPMD does not know the name.
    #[error("no node {node} is running: EPMD at its host does not know the name")]
    NotRunning {
        /// The node.
        node: Arc<str>,
    },
    /// It does not stand in the list.
    #[error("{node} is not in the list of nodes: add its name and address")]
    NotListed {
        /// The node.
        node: Arc<str>,
    },
}

/// Finds nodes.
#[derive(Clone, Debug)]
pub enum Resolver {
    /// Asks the EPMD of the node's host.
    Epmd(Epmd),
    /// Every node listens on this port of its host (`-erl_epmd_port`).
    Port(u16),
    /// Names and addresses are listed.
    Static(HashMap<Arc<str>, SocketAddr>),
}

impl Resolver {
    /// `ERL_DIST_PORT` names the port of all nodes; without it EPMD is asked.
    pub fn from_env() -> Self {
        match std::env::var("ERL_DIST_PORT").map(|port| port.parse()) {
            Ok(Ok(port)) => Resolver::Port(port),
            _ => Resolver::Epmd(Epmd::from_env()),
        }
    }

    /// Where the node `node` may be dialled by a node with a name of form `own`.
    ///
    /// # Errors
    /// See [`ResolveError`].
    pub async fn resolve(&self, node: &str, own: NameForm) -> Result<Address, ResolveError> {
        let parts = NodeName::parse(node)?;
        parts.check_form(own)?;
        match self {
            Resolver::Static(list) => match list.get(node) {
                Some(addr) => Ok(Address::from(*addr)),
                None => Err(ResolveError::NotListed { node: node.into() }),
            },
            Resolver::Port(port) => {
                let hosts = lookup(parts.host).await?;
                Ok(Address(
                    hosts.into_iter().map(|ip| (ip, *port).into()).collect(),
                ))
            }
            Resolver::Epmd(epmd) => {
                let mut hosts = lookup(parts.host).await?;
                let port = ask(epmd, &mut hosts, parts.name).await?;
                let port = port.ok_or_else(|| ResolveError::NotRunning { node: node.into() })?;
                Ok(Address(
                    hosts.into_iter().map(|ip| (ip, port).into()).collect(),
                ))
            }
        }
    }
}

/// Asks the EPMD of a host at the first of its addresses where there is one, and puts that address
/// first: the node is dialled there before elsewhere.
async fn ask(epmd: &Epmd, hosts: &mut [IpAddr], name: &str) -> Result<Option<u16>, EpmdError> {
    let mut first = None;
    for at in 0..hosts.len() {
        match epmd.lookup(hosts[at], name).await {
            Ok(port) => {
                hosts[..=at].rotate_right(1);
                return Ok(port);
            }
            Err(error) => {
                first.get_or_insert(error);
            }
        }
    }
    first.map_or(Ok(None), Err)
}

/// The addresses of a host, IPv4 first: that is where stock nodes listen unless they were told
/// otherwise (`-proto_dist inet6_tcp`).
///
/// # Errors
/// [`ResolveError::Host`].
pub async fn lookup(host: &str) -> Result<Vec<IpAddr>, ResolveError> {
    let failed = |source| ResolveError::Host {
        host: host.to_owned(),
        source,
    };
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let found = timeout(
        limits::HANDSHAKE_TIMEOUT,
        tokio::net::lookup_host((host, 0)),
    )
    .await
    .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    .map_err(failed)?;
    let mut hosts: Vec<IpAddr> = found.map(|addr| addr.ip()).collect();
    hosts.sort_by_key(IpAddr::is_ipv6);
    hosts.dedup();
    hosts.truncate(limits::MAX_ADDRESSES);
    match hosts.is_empty() {
        true => Err(failed(std::io::ErrorKind::NotFound.into())),
        false => Ok(hosts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart() {
        let parts = NodeName::parse("a.b-c@host.domain").expect("a name");
        assert_eq!((parts.name, parts.host), ("a.b-c", "host.domain"));
        let long = format!("{}@h", "x".repeat(254));
        for bad in ["", "a", "@", "a@", "@h", "a@h@i", "a b@h", "a\n@h", &long] {
            let error = NodeName::parse(bad).expect_err(bad);
            assert!(matches!(error, NameError::Malformed(_)));
            assert!(error.to_string().contains("name@host"));
        }
    }

    #[test]
    fn forms_do_not_mix() {
        use NameForm::{Long, Short};
        for (node, form) in [
            ("a@host", Short),
            ("a@host.domain", Long),
            ("a@127.0.0.1", Long),
            ("a@::1", Long),
        ] {
            let parts = NodeName::parse(node).expect("a name");
            assert_eq!(parts.form(), form);
            parts.check_form(form).expect("the same form");
            let (other, advice) = match form {
                Short => (Long, "long names"),
                Long => (Short, "short names"),
            };
            let error = parts.check_form(other).expect_err("another form");
            assert!(error.to_string().contains(advice), "{error}");
            assert!(error.to_string().contains(node), "{error}");
        }
    }

    #[tokio::test]
    async fn addresses_come_from_a_list_or_a_port() {
        let addr: SocketAddr = "10.1.2.3:4000".parse().expect("an address");
        let list = Resolver::Static([("a@host".into(), addr)].into());
        let found = list.resolve("a@host", NameForm::Short).await;
        assert_eq!(found.expect("listed"), Address::from(addr));
        let missing = list.resolve("b@host", NameForm::Short).await;
        assert!(matches!(missing, Err(ResolveError::NotListed { .. })));
        let mixed = list.resolve("a@host", NameForm::Long).await;
        assert!(matches!(
            mixed,
            Err(ResolveError::Name(NameError::NotLong(_)))
        ));

        let fixed = Resolver::Port(4001);
        for (node, addr) in [("a@10.0.0.1", "10.0.0.1:4001"), ("a@::1", "[::1]:4001")] {
            let found = fixed.resolve(node, NameForm::Long).await;
            let addr: SocketAddr = addr.parse().expect("an address");
            assert_eq!(found.expect("an address"), Address::from(addr));
        }
        let local = lookup("localhost").await.expect("every host has it");
        assert!(local.iter().all(IpAddr::is_loopback));
        assert!(local.is_sorted_by_key(IpAddr::is_ipv6));
        let unknown = lookup("no such host").await.expect_err("no host");
        assert!(unknown.to_string().contains("no such host"), "{unknown}");
    }
}
