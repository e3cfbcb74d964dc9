//! Asks: a node of its own that dials, registers with nobody and listens nowhere.

use std::future::Future;
use std::time::{Duration, Instant};

use partisan::distribution::names::lookup;
use partisan::{Distribution, Epmd, Node, Resolver, RpcError, StartError, Value, term};

use crate::failure::{Cause, Failure};
use crate::remote::{self, Asker, CallArgs, MembersArgs, NamesArgs, PingArgs};
use crate::settings::resolve;

/// `partisan ping`
pub(crate) fn ping(args: &PingArgs, as_json: bool) -> Result<String, Failure> {
    let node = asking(&args.asker, &args.node)?;
    run(args.asker.timeout, async {
        let begin = Instant::now();
        node.connect(&*args.node).await?;
        let connected = begin.elapsed();
        let question = term!({is_auth, (Value::atom(node.name()))}).encode();
        let question = question.map_err(|e| Failure::from_error(Cause::Other, &e))?;
        let begin = Instant::now();
        let to = (&*args.node, "net_kernel");
        let answer = node.call_within(to, &question, None).await?;
        let took = begin.elapsed();
        match node.link_info(&args.node) {
            Some(link) if answer.decode().is_atom("yes") => {
                Ok(remote::pong(&link, connected, took, as_json))
            }
            _ => Err(Failure::new(
                Cause::Other,
                format!("{} gave no pong but {}", args.node, answer.decode()),
            )),
        }
    })
}

/// `partisan names`
pub(crate) fn names(args: &NamesArgs, as_json: bool) -> Result<String, Failure> {
    let epmd = args.epmd_port.map_or_else(Epmd::from_env, Epmd::on_port);
    run(Duration::from_secs(10), async {
        let mut first = None;
        for host in lookup(&args.host).await? {
            match epmd.names(host).await {
                Ok(names) => return Ok(remote::names(&args.host, &names, as_json)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.map_or_else(
            || Failure::new(Cause::Unreachable, format!("{} has no address", args.host)),
            Failure::from,
        ))
    })
}

/// `partisan call`
pub(crate) fn call(args: &CallArgs, as_json: bool) -> Result<String, Failure> {
    let node = asking(&args.asker, &args.node)?;
    run(args.asker.timeout, async {
        let (module, function) = (&args.module, &args.function);
        let result = node
            .rpc(&args.node, module, function, args.list(), None)
            .await;
        Ok(remote::result(&result?, as_json))
    })
}

/// `partisan members`
pub(crate) fn members(args: &MembersArgs, as_json: bool) -> Result<String, Failure> {
    const MODULE: &str = "partisan_peer_service";
    let node = asking(&args.asker, &args.node)?;
    run(args.asker.timeout, async {
        let asked = node.rpc(
            &args.node,
            MODULE,
            "members_for_orchestration",
            vec![],
            None,
        );
        let answer = match asked.await {
            Err(RpcError::Error { reason, .. }) if reason.is_atom("undef") => {
                let what = format!("{} has no {MODULE}: it does not run Partisan", args.node);
                return Err(Failure::new(Cause::NoPartisan, what));
            }
            answer => answer?,
        };
        match remote::specs(&answer) {
            Some(members) => Ok(remote::members(&members, as_json)),
            None => Err(Failure::new(
                Cause::Other,
                format!("{} gave no list of members but {answer}", args.node),
            )),
        }
    })
}

/// A node that can only ask.
fn asking(asker: &Asker, target: &str) -> Result<Node, Failure> {
    let host = target.split_once('@').map_or("", |(_, host)| host);
    let name = asker.name.clone().unwrap_or_else(|| {
        let random: u32 = rand::random();
        format!("partisan-{}-{random:x}@{host}", std::process::id())
    });
    let names = match (&asker.at, asker.epmd_port) {
        (Some(at), _) => {
            let found = resolve(at)?.into_iter().next();
            let addr = found.ok_or_else(|| Failure::new(Cause::Usage, "--at has no address"))?;
            Resolver::Static([(target.into(), addr)].into())
        }
        (None, Some(port)) => Resolver::Epmd(Epmd::on_port(port)),
        (None, None) => Resolver::from_env(),
    };
    let mut distribution = Distribution::new().names(names).dial_only().threads(1);
    if let Some(tls) = asker.tls.over(None) {
        distribution = distribution.tls(tls.config()?);
    }
    let mut builder = Node::builder(name).distribution(distribution).io_threads(1);
    builder = builder.bulk_threads(1);
    if let Some(cookie) = &asker.cookie {
        builder = builder.cookie(cookie.as_str());
    }
    builder.start().map_err(|error| match error {
        StartError::NoCookie => Failure::new(
            Cause::Usage,
            "no cookie: give --cookie, PARTISAN_COOKIE or the file ~/.erlang.cookie",
        ),
        error => Failure::from(error),
    })
}

fn run<T>(
    timeout: Duration,
    asking: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|e| Failure::from_error(Cause::Other, &e))?;
    runtime.block_on(async {
        let late = |_| Failure::new(Cause::Timeout, format!("no answer within {timeout:?}"));
        tokio::time::timeout(timeout, asking).await.map_err(late)?
    })
}
