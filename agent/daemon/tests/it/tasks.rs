//! What comes of tasks, well-behaved and not.

use std::sync::Arc;

use farlane_model::*;
use farlane_units::{ByteCount, Millis};

use crate::network::Network;
use crate::node::{Node, config};
use crate::work::{Ask, Function, all_signed};

pub struct Stage {
    pub network: Arc<Network>,
    pub node: Node,
    pub dir: tempfile::TempDir,
}

pub async fn stage(own: bool) -> Stage {
    let _ = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_test_writer()
        .try_init();
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(own).await;
    let node = Node::start(&network, config(&network, dir.path())).await;
    Stage { network, node, dir }
}

impl Stage {
    pub fn function(&self, source: &str, calls: &[&str]) -> Function {
        Function::new(&self.network, source, calls, Ask::default())
    }
    pub fn asking(&self, source: &str, calls: &[&str], ask: Ask) -> Function {
        Function::new(&self.network, source, calls, ask)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_runs_and_its_sealed_result_comes_back_signed() {
    let stage = stage(true).await;
    let f = stage.function(
        "def f(a, b): return {'sum': a + b}",
        &["(1, 2)", "('x', 'y')"],
    );
    assert_eq!(f.call(0).await.value(), "{'sum': 3}");
    assert_eq!(f.call(1).await.value(), "{'sum': 'xy'}");
    assert!(all_signed(&stage.network));
    let spec = stage.network.seen.lock().spec.clone().unwrap();
    assert!(
        spec.interpreters
            .iter()
            .any(|i| i.version == crate::work::version())
    );
    assert_eq!(spec.labels, [("disk".to_owned(), "nvme".to_owned())].into());
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_short_tasks_come_back_each_once() {
    let stage = stage(true).await;
    let f = stage.function("def f(): return None", &["()"]);
    f.call(0).await;
    let began = std::time::Instant::now();
    let calls = f.submit(0, 2000).await;
    for call in &calls {
        let at = call.at;
        stage
            .network
            .until("all", |seen| seen.completions.get(&at).map(|_| ()))
            .await;
    }
    println!("2000 tasks in {:?}", began.elapsed());
    assert_eq!(f.outcome(&calls[1999]).await.value(), "None");
    assert!(all_signed(&stage.network));
    let sizes: Vec<_> = stage
        .network
        .seen
        .lock()
        .batches
        .iter()
        .map(|batch| batch.items.len())
        .collect();
    assert_eq!(sizes.iter().sum::<usize>(), 2001);
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_keep_type_arguments_cause_and_frames() {
    let stage = stage(true).await;
    let source = "def g(): raise KeyError('inner')\n\
                  def f():\n    try:\n        g()\n    except KeyError as e:\n        \
                  raise ValueError('outer', 7) from e";
    let outcome = stage.function(source, &["()"]).call(0).await;
    assert!(outcome.raised("type").contains("ValueError"));
    assert!(outcome.raised("args").contains("outer") && outcome.raised("args").contains('7'));
    assert!(
        outcome.raised("frames").contains("task.py"),
        "{}",
        outcome.raised("frames")
    );
    assert!(outcome.raised("pickle").contains("Bytes"));
    let text = String::from_utf8_lossy(outcome.plain.as_ref().unwrap()).into_owned();
    assert!(text.contains("direct cause") && text.contains("KeyError"));
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exceptions_that_cannot_be_described_are_reported_all_the_same() {
    let stage = stage(true).await;
    let source = "import sys\nclass Odd(Exception):\n    __module__ = 'm\\udc80'\nclass Exits(Exception):\n    \
                  def __str__(self): sys.exit(3)\nclass Hides(Exception):\n    \
                  __cause__ = property(lambda self: sys.exit(4))\ndef f(which):\n    \
                  code = compile('raise error', 'odd\\udcff.py', 'exec')\n    \
                  exec(code, {'error': {'Odd': Odd, 'Exits': Exits, 'Hides': Hides}[which]('\\udc81')})";
    let f = stage.function(source, &["('Odd',)", "('Exits',)", "('Hides',)"]);
    for (n, name) in ["Odd", "Exits", "Hides"].into_iter().enumerate() {
        let outcome = f.call(n).await;
        assert!(outcome.raised("type").contains(name), "{outcome:?}");
    }
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn results_for_strangers_cannot_execute() {
    let stage = stage(false).await;
    let f = stage.function("def f(x): return x", &["([1, 'a', None],)", "(object(),)"]);
    let outcome = f.call(0).await;
    let plain = outcome.plain.unwrap();
    assert_eq!(plain[0], 0);
    let value = farlane_codec::value::decode(&plain[1..]).unwrap();
    assert!(format!("{value:?}").contains("\"a\""));
    let outcome = f.call(1).await;
    assert!(outcome.raised("type").contains("SerializationError"));
    assert!(outcome.raised("pickle").contains("None"));
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_leaves_or_crashes_is_lost_and_the_next_task_runs() {
    let stage = stage(true).await;
    let source = "def f(how):\n    import os, sys, ctypes\n    if how == 'exit': sys.exit(3)\n    \
                  if how == '_exit': os._exit(4)\n    if how == 'segfault': ctypes.string_at(0)\n    \
                  if how == 'kill': os.kill(os.getpid(), 9)\n    return how";
    let f = stage.function(
        source,
        &[
            "('exit',)",
            "('_exit',)",
            "('segfault',)",
            "('kill',)",
            "('ok',)",
        ],
    );
    let lost = |cause| ExitKind::Lost(cause);
    assert_eq!(f.call(0).await.exit.kind, lost(LostCause::ExitCode(3)));
    assert_eq!(f.call(1).await.exit.kind, lost(LostCause::ExitCode(4)));
    assert_eq!(
        f.call(2).await.exit.kind,
        lost(LostCause::Signal(libc::SIGSEGV))
    );
    assert_eq!(
        f.call(3).await.exit.kind,
        lost(LostCause::Signal(libc::SIGKILL))
    );
    assert_eq!(f.call(4).await.value(), "'ok'");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_task_that_ran_is_lost_with_its_worker() {
    let stage = stage(true).await;
    let source = "def f(bad):\n    import os\n    if bad: os.kill(os.getpid(), 9)\n    return 1";
    let f = stage.function(source, &["(False,)", "(True,)"]);
    f.call(0).await;
    let good = f.submit(0, 100).await;
    let bad = f.submit(1, 1).await;
    let more = f.submit(0, 100).await;
    for call in good.iter().chain(&more) {
        assert_eq!(f.outcome(call).await.exit.kind, ExitKind::Returned);
    }
    assert_eq!(
        f.outcome(&bad[0]).await.exit.kind,
        ExitKind::Lost(LostCause::Signal(9))
    );
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_turns_long_does_not_hold_up_those_behind_it() {
    let stage = stage(true).await;
    let source = "def f(s):\n    import time\n    time.sleep(s)\n    return s";
    let f = stage.function(source, &["(0,)", "(30,)"]);
    f.call(0).await;
    for _ in 0..3 {
        f.call(0).await;
    }
    let long = f.submit(1, 1).await;
    let short = f.submit(0, 50).await;
    let began = std::time::Instant::now();
    for call in &short {
        assert_eq!(f.outcome(call).await.exit.kind, ExitKind::Returned);
    }
    assert!(began.elapsed().as_secs() < 10);
    assert!(
        !stage
            .network
            .seen
            .lock()
            .completions
            .contains_key(&long[0].at)
    );
    stage
        .network
        .until("told", |seen| {
            seen.started.contains(&long[0].at).then_some(())
        })
        .await;
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_and_cancels_kill_the_task_and_its_children() {
    let stage = stage(true).await;
    let source = "def f():\n    import subprocess, time\n    \
                  subprocess.Popen(['sleep', '987654'], start_new_session=True)\n    time.sleep(60)";
    let ask = Ask {
        timeout: Some(Millis(300)),
        ..Ask::default()
    };
    let outcome = stage.asking(source, &["()"], ask).call(0).await;
    assert_eq!(outcome.exit.kind, ExitKind::TimedOut);
    let ran = outcome.completion.ended_ms - outcome.completion.started_ms;
    assert!((250..3000).contains(&ran), "{ran}");
    let f = stage.function(source, &["()"]);
    let call = f.submit(0, 1).await.remove(0);
    stage
        .network
        .until("begun", |seen| {
            seen.started.contains(&call.at).then_some(())
        })
        .await;
    let stop = farlane_wire::v1::Stop {
        attempts: vec![call.at.into()],
        reason: "enough".into(),
    };
    stage
        .network
        .tell(farlane_wire::v1::control_frame::Body::Stop(stop))
        .await;
    let exit = f.outcome(&call).await.exit;
    assert_eq!(
        (exit.kind, exit.message.as_str()),
        (ExitKind::Cancelled, "enough")
    );
    for _ in 0..100 {
        if !runs("987654") {
            return stage.node.stop().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("a child outlived its task");
}

/// Whether a process of this machine has `word` among its arguments.
pub fn runs(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split(|b| *b == 0).any(|arg| arg == word.as_bytes()))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn output_is_sealed_kept_apart_and_bounded() {
    let stage = stage(true).await;
    let source = "def f(n):\n    import os, sys\n    print('line', n)\n    \
                  print('error', n, file=sys.stderr)\n    os.write(1, b'raw\\n')\n    return n";
    let f = stage.function(source, &["(1,)", "(2,)"]);
    let first = f.submit(0, 1).await.remove(0);
    let second = f.submit(1, 1).await.remove(0);
    let (text, dropped) = f.printed(&first).await;
    assert!(text.contains("line 1\n") && text.contains("error 1\n") && !text.contains("line 2"));
    assert!(text.contains("raw\n"), "{text}");
    assert_eq!(dropped, 0);
    assert!(f.printed(&second).await.0.contains("line 2\n"));
    let source = "def f():\n    for _ in range(300_000): print('x' * 99)";
    let f = stage.function(source, &["()"]);
    let call = f.submit(0, 1).await.remove(0);
    assert_eq!(f.outcome(&call).await.exit.kind, ExitKind::Returned);
    let (text, dropped) = f.printed(&call).await;
    assert_eq!(text.len(), 64 * 1024);
    assert!(dropped > 0, "{dropped}");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_memory_scratch_and_too_many_processes_hurt_only_the_task() {
    let stage = stage(true).await;
    let ask = Ask {
        memory: ByteCount::mib(64),
        scratch: ByteCount::mib(8),
        ..Ask::default()
    };
    let source = "def f(how):\n    import os\n    if how == 'memory': return len(bytearray(2 << 30))\n    \
                  if how == 'scratch':\n        with open('big', 'wb') as file:\n            \
                  for _ in range(64): file.write(bytes(1 << 20))\n    \
                  if how == 'bomb':\n        while True: os.fork()\n    return how";
    let f = stage.asking(
        source,
        &["('memory',)", "('scratch',)", "('bomb',)", "('ok',)"],
        ask,
    );
    let outcome = f.call(0).await;
    match outcome.exit.kind {
        ExitKind::Raised => assert!(outcome.raised("type").contains("MemoryError")),
        other => assert!(matches!(other, ExitKind::Lost(_)), "{other:?}"),
    }
    let outcome = f.call(1).await;
    assert!(
        outcome.raised("type").contains("OSError"),
        "{:?}",
        outcome.exit
    );
    let outcome = f.call(2).await;
    match outcome.exit.kind {
        ExitKind::Raised => assert!(outcome.raised("type").contains("BlockingIOError")),
        other => assert!(matches!(other, ExitKind::Lost(_)), "{other:?}"),
    }
    assert_eq!(f.call(3).await.value(), "'ok'");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_sandbox_shows_nothing_of_the_machine() {
    let stage = stage(true).await;
    let source = "def f():\n    import os, socket\n    def cannot(g):\n        try:\n            g()\n        \
                  except Exception as e:\n            return type(e).__name__\n        return 'can'\n    \
                  return {'root': os.path.exists('/root'), 'home': os.path.exists('/home'),\n            \
                  'etc': sorted(os.listdir('/etc')), 'pids': len([p for p in os.listdir('/proc') if p.isdigit()]) < 8,\n            \
                  'write': cannot(lambda: open('/usr/x', 'w')), 'rootfs': cannot(lambda: open('/x', 'w')),\n            \
                  'dev': cannot(lambda: open('/dev/x', 'w')),\n            \
                  'net': cannot(lambda: socket.create_connection(('198.51.100.1', 9), 1)),\n            \
                  'env': sorted(k for k in os.environ if 'KEY' in k or 'CARGO' in k)}";
    let outcome = stage.function(source, &["()"]).call(0).await;
    if stage.network.seen.lock().spec.as_ref().unwrap().tier == Tier::Namespaces {
        let value = outcome.value();
        for part in [
            "'root': False",
            "'home': False",
            "'pids': True",
            "'env': []",
        ] {
            assert!(value.contains(part), "{part} {value}");
        }
        for part in [
            "'write': 'can'",
            "'rootfs': 'can'",
            "'dev': 'can'",
            "'net': 'can'",
            "shadow",
        ] {
            assert!(!value.contains(part), "{part} {value}");
        }
    }
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_task_leaves_in_its_scratch_the_next_does_not_see() {
    let stage = stage(true).await;
    let source = "def f():\n    import os, tempfile\n    seen = os.listdir('.')\n    \
                  os.makedirs('a/b')\n    open('a/b/c', 'w').write('secret')\n    \
                  os.symlink('/usr', 'link')\n    \
                  return seen, tempfile.gettempdir() == os.getcwd(), os.path.expanduser('~') == os.getcwd()";
    let f = stage.function(source, &["()"]);
    for _ in 0..3 {
        assert_eq!(f.call(0).await.value(), "([], True, True)");
    }
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_arguments_and_results_go_by_blob() {
    let stage = stage(true).await;
    let source = "import os\ndef f(data): return data[::-1] + os.urandom(len(data) // 2)";
    let f = stage.function(
        source,
        &["(b'ab' * 40_000,)", "(bytes(range(256)) * 8000,)"],
    );
    let value = f.call(0).await.value();
    assert!(value.starts_with("b'bababa") && value.len() > 120_000);
    let outcome = f.call(1).await;
    assert_eq!(outcome.plain.as_ref().unwrap().len() / 1000, 3072);
    assert!(matches!(
        Sealed::try_from(outcome.completion.sealed.clone().unwrap()).unwrap(),
        Sealed::Blob(_)
    ));
    stage.node.stop().await;
}

/// The process that calls itself `name`.
pub fn named(name: &str) -> i32 {
    let pid = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .find_map(|entry| {
            let comm = std::fs::read_to_string(entry.path().join("comm")).ok()?;
            (comm.trim() == name).then(|| entry.file_name().to_str()?.parse::<i32>().ok())?
        });
    pid.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_above_the_bound_is_an_exception_that_names_it() {
    let stage = stage(true).await;
    // The bound that the agent named; then a smaller one, in the worker that the task runs in.
    let source = "def f(bound, size):\n    import sys\n    worker = sys.modules['farlane_worker']\n    \
                  known = worker.MAX_ANSWER\n    worker.MAX_ANSWER = bound or known\n    \
                  return bytes(size) if size else known";
    let f = stage.function(
        source,
        &["(0, 0)", "(2_000_000, 2_000_000)", "(2_000_000, 1_900_000)"],
    );
    assert_eq!(f.call(0).await.value(), (1 << 30).to_string());
    let outcome = f.call(1).await;
    let message = outcome.raised("message");
    assert!(message.contains("at most 2000000"), "{message}");
    assert_eq!(outcome.raised("type"), r#"Str("PayloadTooLarge")"#);
    assert_eq!(outcome.raised("module"), r#"Str("farlane")"#);
    assert_eq!(outcome.raised("pickle"), "None");
    assert_eq!(f.call(2).await.exit.kind, ExitKind::Returned);
    stage.node.stop().await;
}
