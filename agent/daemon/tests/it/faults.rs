//! What happens when connections, grants, leases, workers and the agent itself fail.

use std::time::{Duration, Instant};

use farlane_model::*;
use farlane_units::Millis;
use farlane_wire::v1;
use farlane_wire::v1::control_frame::Body;

use crate::network::{Network, now};
use crate::node::{Node, config};
use crate::tasks::stage;
use crate::work::{Ask, Function, all_signed};

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_may_come_before_its_assignment() {
    let stage = stage(true).await;
    let f = stage.function("def f(): return 'early'", &["()"]);
    let (call, assignment, grant) = f.prepare(0);
    let batch = stage.network.grant(&[grant]);
    stage.network.tell(Body::Grant(batch)).await;
    stage.network.tell(f.assign(vec![assignment])).await;
    assert_eq!(f.outcome(&call).await.value(), "'early'");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_without_its_grant() {
    let stage = stage(true).await;
    let f = stage.function("def f(): return 1", &["()"]);
    let (without, assignment, _) = f.prepare(0);
    stage.network.tell(f.assign(vec![assignment])).await;
    assert_eq!(f.call(0).await.value(), "1");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(
        !stage
            .network
            .seen
            .lock()
            .completions
            .contains_key(&without.at)
    );
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn altered_payloads_specs_and_grants_are_refused() {
    let stage = stage(true).await;
    let network = &stage.network;
    let f = stage.function("def f(): return 1", &["()"]);
    let other = stage.function("def f(): return 2", &["()"]);
    let refused = async |call: &crate::work::Call| {
        let exit = f.outcome(call).await.exit;
        assert_eq!(exit.kind, ExitKind::Refused, "{exit:?}");
        exit.message
    };
    // One bit of the payload.
    let (call, mut assignment, grant) = f.prepare(0);
    if let Some(v1::Sealed {
        place: Some(v1::sealed::Place::Inline(bytes)),
    }) = &mut assignment.payload
    {
        let mut altered = bytes.to_vec();
        altered[60] ^= 1;
        *bytes = altered.into();
    }
    network.tell(f.assign(vec![assignment])).await;
    network.tell(Body::Grant(network.grant(&[grant]))).await;
    assert!(
        refused(&call)
            .await
            .contains("not the one that was granted")
    );
    // The payload of another task.
    let (call, mut assignment, grant) = f.prepare(0);
    let (_, foreign, _) = f.prepare(0);
    assignment.payload = foreign.payload;
    network.tell(f.assign(vec![assignment])).await;
    network.tell(Body::Grant(network.grant(&[grant]))).await;
    assert!(refused(&call).await.contains("payload"));
    // Another spec than the one granted: other code would run.
    let (call, mut assignment, grant) = f.prepare(0);
    let (_, foreign, _) = other.prepare(0);
    assignment.spec = foreign.spec;
    network.tell(other.assign(vec![])).await;
    network.tell(f.assign(vec![assignment])).await;
    network.tell(Body::Grant(network.grant(&[grant]))).await;
    assert!(refused(&call).await.contains("spec"));
    // One bit of a batch of grants, and a batch again: nothing is granted by them.
    let (call, assignment, grant) = f.prepare(0);
    network.tell(f.assign(vec![assignment])).await;
    let batch = network.grant(std::slice::from_ref(&grant));
    for i in [0, batch.sealed.len() / 2, batch.sealed.len() - 1] {
        let mut altered = batch.clone();
        let mut sealed = altered.sealed.to_vec();
        sealed[i] ^= 1;
        altered.sealed = sealed.into();
        network.tell(Body::Grant(altered)).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!network.seen.lock().completions.contains_key(&call.at));
    network.tell(Body::Grant(batch.clone())).await;
    network.tell(Body::Grant(batch)).await;
    assert_eq!(f.outcome(&call).await.value(), "1");
    // A grant whose time to open it is over.
    let (call, assignment, mut grant) = f.prepare(0);
    grant.open_by = Millis(now().0 - 1000);
    network.tell(f.assign(vec![assignment])).await;
    network.tell(Body::Grant(network.grant(&[grant]))).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!network.seen.lock().completions.contains_key(&call.at));
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tenants_that_are_not_admitted_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let mut config = config(&network, dir.path());
    config.tenants = Some(vec![]);
    let node = Node::start(&network, config).await;
    let f = Function::new(&network, "def f(): return 1", &["()"], Ask::default());
    let exit = f.call(0).await.exit;
    assert_eq!(exit.kind, ExitKind::Refused);
    assert!(exit.message.contains("farlane tenants allow"));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_namespaces_only_the_own_tenant_is_served_and_without_sockets() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let mut config = config(&network, dir.path());
    config.strongest_tier = Some(Tier::Process);
    let node = Node::start(&network, config.clone()).await;
    assert_eq!(
        network.seen.lock().spec.as_ref().unwrap().tier,
        Tier::Process
    );
    let source = "def f():\n    import socket, os\n    try:\n        socket.socket()\n    \
                  except OSError:\n        return 'no sockets', os.getuid() != 0";
    let f = Function::new(&network, source, &["()"], Ask::default());
    assert_eq!(f.call(0).await.value(), "('no sockets', True)");
    let state = dir.path().join("state");
    let source = format!(
        "def f():\n    try:\n        open({:?}, 'rb').read()\n    except OSError as e:\n        \
         return 'cannot'",
        state.join("identity")
    );
    let f = Function::new(&network, &source, &["()"], Ask::default());
    assert_eq!(f.call(0).await.value(), "'cannot'");
    let tight = Ask {
        tier: Tier::Namespaces,
        ..Ask::default()
    };
    let exit = Function::new(&network, "def f(): pass", &["()"], tight)
        .call(0)
        .await
        .exit;
    assert_eq!(exit.kind, ExitKind::Refused);
    node.stop().await;
    config.own_tenants = vec![];
    let node = Node::start(&network, config).await;
    assert_eq!(f.call(0).await.exit.kind, ExitKind::Refused);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_namespaces_too_nothing_outlives_the_agent() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let mut config = config(&network, dir.path());
    config.strongest_tier = Some(Tier::Process);
    let node = Node::start(&network, config).await;
    let source = "def f(s):\n    import os, time\n    time.sleep(s)\n    return os.getpid()";
    let f = Function::new(&network, source, &["(0,)", "(600,)"], Ask::default());
    let worker = f.call(0).await.value();
    let process = std::path::Path::new("/proc").join(&worker);
    assert!(process.exists());
    f.submit(1, 1).await;
    network
        .until("the long one to begin", |seen| {
            (!seen.started.is_empty()).then_some(())
        })
        .await;
    node.stop().await;
    for _ in 0..100 {
        if !process.exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("worker {worker} goes on without its agent");
}

#[tokio::test(flavor = "multi_thread")]
async fn work_goes_on_while_the_control_plane_is_away_and_is_told_afterwards() {
    let stage = stage(true).await;
    let network = &stage.network;
    let source = "def f():\n    import time\n    time.sleep(0.3)\n    return 'through'";
    let f = stage.function(source, &["()"]);
    let (waiting, assignment, _) = f.prepare(0);
    network.tell(f.assign(vec![assignment])).await;
    let call = f.submit(0, 1).await.remove(0);
    network
        .until("begun", |seen| {
            seen.started.contains(&call.at).then_some(())
        })
        .await;
    network.hang_up();
    let hellos = network
        .until("the next hello", |seen| {
            (seen.hellos.len() > 1).then(|| seen.hellos.clone())
        })
        .await;
    let observed = hellos[1].observed.clone().unwrap();
    assert_eq!(observed.live.len(), 2);
    for at in [call.at, waiting.at] {
        assert!(observed.live.contains(&at.into()), "{observed:?}");
    }
    // A leader that never asked for its grant must know.
    assert_eq!(observed.ungranted, [v1::AttemptRef::from(waiting.at)]);
    assert_eq!(hellos[0].boot, hellos[1].boot);
    assert_eq!(f.outcome(&call).await.value(), "'through'");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reconnect_what_is_not_desired_stops_and_what_is_goes_on() {
    let stage = stage(true).await;
    let network = &stage.network;
    let f = stage.function(
        "def f(s):\n    import time\n    time.sleep(s)\n    return s",
        &["(600,)", "(0.4,)"],
    );
    let unwanted = f.submit(0, 1).await.remove(0);
    network
        .until("begun", |seen| {
            seen.started.contains(&unwanted.at).then_some(())
        })
        .await;
    let (kept, assignment, grant) = f.prepare(1);
    network
        .tell(Body::Desired(v1::Desired {
            index: 5,
            attempts: vec![assignment],
        }))
        .await;
    network.tell(Body::Grant(network.grant(&[grant]))).await;
    assert_eq!(f.outcome(&kept).await.value(), "0.4");
    // A lagging server's push, older than what was seen, stops nothing.
    let (running, assignment, grant) = f.prepare(1);
    network
        .tell(Body::Assign(v1::Assign {
            index: 6,
            attempts: vec![assignment],
            specs: vec![],
        }))
        .await;
    network.tell(Body::Grant(network.grant(&[grant]))).await;
    network
        .tell(Body::Desired(v1::Desired {
            index: 5,
            attempts: vec![],
        }))
        .await;
    assert_eq!(f.outcome(&running).await.value(), "0.4");
    assert!(!network.seen.lock().completions.contains_key(&unwanted.at));
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unacknowledged_results_survive_the_agent_and_are_told_by_the_next() {
    let stage = stage(true).await;
    let network = &stage.network;
    network.treatment.lock().acknowledges = false;
    let f = stage.function("def f(): return 'kept'", &["()"]);
    let call = f.submit(0, 1).await.remove(0);
    assert_eq!(f.outcome(&call).await.value(), "'kept'");
    let first = network.seen.lock().batches[0].clone();
    stage.node.stop().await;
    network.treatment.lock().acknowledges = true;
    network.seen.lock().completions.clear();
    network.seen.lock().prekeys.clear();
    let node = Node::start(
        network,
        farlane_daemon::AgentConfig::new(stage.dir.path().join("state")),
    )
    .await;
    assert_eq!(f.outcome(&call).await.value(), "'kept'");
    let hello = network.seen.lock().hellos.last().cloned().unwrap();
    assert_ne!(hello.boot, first.boot);
    assert_eq!(
        hello.observed.unwrap().ended,
        [v1::AttemptRef::from(call.at)]
    );
    assert_eq!(network.seen.lock().batches.last().unwrap(), &first);
    assert!(all_signed(network));
    assert_eq!(f.call(0).await.value(), "'kept'");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_lease_a_node_stops_and_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    *network.treatment.lock() = crate::network::Treatment {
        lease_ms: 2_500,
        ..Default::default()
    };
    let node = Node::start(&network, config(&network, dir.path())).await;
    let source = "def f():\n    import subprocess, time\n    subprocess.Popen(['sleep', '765432'])\n    time.sleep(60)";
    let f = Function::new(&network, source, &["()"], Ask::default());
    let call = f.submit(0, 1).await.remove(0);
    network
        .until("begun", |seen| {
            seen.started.contains(&call.at).then_some(())
        })
        .await;
    network.treatment.lock().renews = false;
    let began = Instant::now();
    while crate::tasks::runs("765432") || began.elapsed() < Duration::from_millis(100) {
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "it runs past its lease"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!network.seen.lock().completions.contains_key(&call.at));
    network.hang_up();
    let observed = network
        .until("a hello", |seen| {
            (seen.hellos.len() > 1).then(|| seen.hellos[1].observed.clone())
        })
        .await;
    assert!(observed.unwrap().live.is_empty());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_worker_is_replaced_at_once() {
    let stage = stage(true).await;
    let name = format!("victim{}", std::process::id());
    let source = format!(
        "def f(n):\n    import ctypes, time\n    if n == 1:\n        \
         ctypes.CDLL(None).prctl(15, b'{name}')\n        time.sleep(60)\n    return n"
    );
    let f = stage.function(&source, &["(0,)", "(1,)"]);
    f.call(0).await;
    let call = f.submit(1, 1).await.remove(0);
    stage
        .network
        .until("begun", |seen| {
            seen.started.contains(&call.at).then_some(())
        })
        .await;
    let victim = crate::tasks::named(&name);
    let began = Instant::now();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(victim),
        nix::sys::signal::SIGKILL,
    )
    .unwrap();
    let exit = f.outcome(&call).await.exit;
    assert_eq!(exit.kind, ExitKind::Lost(LostCause::Signal(9)));
    let next = f.call(0).await;
    let took = began.elapsed();
    assert_eq!(next.value(), "0");
    println!("killed to the next result: {took:?}");
    assert!(took < Duration::from_millis(500), "{took:?}");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_without_a_valid_file_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let config = farlane_daemon::AgentConfig::new(dir.path());
    let never = std::future::pending::<()>();
    let error = farlane_daemon::Agent::start(config.clone(), never)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("farlane tokens create"),
        "{error}"
    );
    let mut config = config;
    config.join_file = Some("rubbish".into());
    let never = std::future::pending::<()>();
    let error = farlane_daemon::Agent::start(config, never)
        .await
        .unwrap_err();
    assert!(
        matches!(error, farlane_daemon::StartError::BadJoinFile(_)),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn environments_are_built_once_from_their_lock_and_failures_tell_their_log() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let uv = dir.path().join("uv");
    let count = dir.path().join("builds");
    // Stands in for uv: writes the module that the lock names, or fails as uv does.
    let script = format!(
        "#!/bin/sh\necho build >> {}\nwhile [ $# -gt 0 ]; do case $1 in --target) T=$2;; -r) R=$2;; esac; shift; done\n\
         if grep -q missing $R; then echo 'error: no such package' >&2; exit 2; fi\n\
         mkdir -p $T && echo 'ANSWER = 42' > $T/something.py\n",
        count.display()
    );
    std::fs::write(&uv, script).unwrap();
    std::fs::set_permissions(&uv, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut config = config(&network, dir.path());
    config.uv = Some(uv);
    let node = Node::start(&network, config).await;
    let asking = |lock: &str| Ask {
        lock: Some(lock.into()),
        ..Ask::default()
    };
    let source = "def f():\n    import something\n    return something.ANSWER";
    let f = Function::new(
        &network,
        source,
        &["()"],
        asking("something==1 --hash=sha256:aa\n"),
    );
    for call in f.submit(0, 5).await {
        assert_eq!(f.outcome(&call).await.value(), "42");
    }
    assert_eq!(std::fs::read_to_string(&count).unwrap().lines().count(), 1);
    let f = Function::new(&network, source, &["()"], Ask::default());
    assert!(
        f.call(0)
            .await
            .raised("type")
            .contains("ModuleNotFoundError")
    );
    for (lock, said) in [
        ("missing==1 --hash=sha256:aa\n", "no such package"),
        ("--index-url http://10.0.0.1/\n", "versions and hashes only"),
    ] {
        let f = Function::new(&network, source, &["()"], asking(lock));
        let outcome = f.call(0).await;
        assert_eq!(outcome.exit.kind, ExitKind::EnvFailed);
        let plain = outcome.plain.unwrap();
        let value = farlane_codec::value::decode(&plain[1..]).unwrap();
        assert!(format!("{value:?}").contains(said), "{value:?}");
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_rlimits_do_not_see_is_bounded_by_the_control_group() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let mut config = config(&network, dir.path());
    config.memory = Some(farlane_units::ByteCount::mib(192));
    let node = Node::start(&network, config).await;
    let source = "def f(mib):\n    import mmap\n    space = mmap.mmap(-1, mib << 20)\n    \
                  for i in range(0, len(space), 4096): space[i] = 1\n    return len(space) >> 20";
    let f = Function::new(&network, source, &["(8,)", "(400,)"], Ask::default());
    assert_eq!(f.call(0).await.value(), "8");
    let enforced = network.seen.lock().spec.as_ref().unwrap().enforced.clone();
    let kind = f.call(1).await.exit.kind;
    match enforced.iter().any(|name| name == "cgroup-memory") {
        true => assert_eq!(kind, ExitKind::Lost(LostCause::OutOfMemory)),
        // Nothing here bounds shared memory; the node's spec does not promise it.
        false => assert_eq!(kind, ExitKind::Returned),
    }
    assert_eq!(f.call(0).await.value(), "8");
    node.stop().await;
}
