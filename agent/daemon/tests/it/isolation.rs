//! What tasks can do to each other, to their template, and to what is said about them.

use farlane_model::*;
use farlane_units::ByteCount;

use crate::network::Network;
use crate::node::{Node, config};
use crate::tasks::stage;
use crate::work::{Ask, Function};

fn enforced(network: &Network, name: &str) -> bool {
    let seen = network.seen.lock();
    let enforced = &seen.spec.as_ref().unwrap().enforced;
    enforced.iter().any(|has| has == name)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_processes_of_a_task_hold_its_memory_together_and_neighbours_live() {
    let stage = stage(true).await;
    let spec = stage.network.seen.lock().spec.clone().unwrap();
    if !enforced(&stage.network, "cgroup-memory") {
        // Said where it is so: each process is bounded for itself.
        assert!(spec.enforced.iter().any(|name| name == "memory-a-process"));
        return stage.node.stop().await;
    }
    let ask = Ask {
        memory: ByteCount::mib(64),
        ..Ask::default()
    };
    // Each child stays below the task's memory; together they do not.
    let source = "def f(children, mib, wait=0):\n    import os, time, mmap\n    here = os.pipe()\n    \
                  for _ in range(children):\n        if os.fork() == 0:\n            \
                  space = mmap.mmap(-1, mib << 20)\n            \
                  for i in range(0, len(space), 4096): space[i] = 1\n            \
                  os.write(here[1], b'x')\n            time.sleep(60)\n            os._exit(0)\n    \
                  time.sleep(wait)\n    got = 0\n    \
                  while got < children: got += len(os.read(here[0], children))\n    return got";
    let f = stage.asking(
        source,
        &["(0, 0, 1.5)", "(1, 40)", "(8, 40)", "(0, 0)"],
        ask,
    );
    assert_eq!(f.call(3).await.value(), "0");
    let neighbour = f.submit(0, 1).await.remove(0);
    assert_eq!(f.call(1).await.value(), "1");
    let eater = f.submit(2, 1).await.remove(0);
    assert_eq!(
        f.outcome(&eater).await.exit.kind,
        ExitKind::Lost(LostCause::OutOfMemory)
    );
    assert_eq!(
        f.outcome(&neighbour).await.value(),
        "0",
        "a neighbour lives"
    );
    assert_eq!(f.call(3).await.value(), "0");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fork_bomb_leaves_its_neighbours_their_processes() {
    let stage = stage(true).await;
    // The bomb goes on for a while after it has met its bound.
    let source = "def f(bomb):\n    import os, subprocess, time\n    if not bomb:\n        time.sleep(0.5)\n        \
                  return subprocess.run(['/bin/echo', 'alive'], capture_output=True).stdout\n    full = 0\n    \
                  while full < 200:\n        \
                  try:\n            if os.fork() == 0:\n                time.sleep(600)\n                os._exit(0)\n        \
                  except BlockingIOError:\n            full += 1\n            time.sleep(0.01)\n    return full";
    let f = stage.function(source, &["(True,)", "(False,)"]);
    let bomb = f.submit(0, 1).await.remove(0);
    stage
        .network
        .until("begun", |seen| {
            seen.started.contains(&bomb.at).then_some(())
        })
        .await;
    let neighbour = f.submit(1, 1).await.remove(0);
    if enforced(&stage.network, "cgroup-pids") {
        assert_eq!(f.outcome(&neighbour).await.value(), r"b'alive\n'");
    }
    assert_eq!(f.outcome(&bomb).await.value(), "200");
    assert_eq!(f.call(1).await.value(), r"b'alive\n'");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_task_leaves_in_tmp_shm_and_processes_the_next_does_not_see() {
    let stage = stage(true).await;
    let source = "def f(wait):\n    import os, time\n    places = ['/tmp', '/dev/shm', '.']\n    \
                  seen = [os.path.exists(p + '/x') for p in places] + [len(os.listdir(p)) for p in places]\n    \
                  for p in places: open(p + '/x', 'w').write('secret')\n    \
                  ready = os.pipe()\n    if os.fork() == 0:\n        os.setsid()\n        \
                  if os.fork() == 0:\n            os.write(ready[1], b'x')\n            while True:\n                \
                  for p in places:\n                    try: open(p + '/x', 'w').write('again')\n                    \
                  except OSError: pass\n                time.sleep(0.001)\n        os._exit(0)\n    \
                  os.read(ready[0], 1)\n    time.sleep(wait)\n    return os.getpid(), seen";
    let f = stage.function(source, &["(0,)", "(0.5,)"]);
    let pid = |value: &str| {
        value
            .trim_start_matches('(')
            .split(',')
            .next()
            .unwrap()
            .to_owned()
    };
    let nothing = "[False, False, False, 0, 0, 0])";
    let mut pids = std::collections::HashSet::new();
    for _ in 0..3 {
        let value = f.call(0).await.value();
        assert!(value.ends_with(nothing), "{value}");
        pids.insert(pid(&value));
    }
    // The same warm worker served them: what descended from a task was ended, not the worker.
    assert_eq!(pids.len(), 1);
    // Nor does a task that runs at the same time see it.
    let long = f.submit(1, 2).await;
    for call in &long {
        let value = f.outcome(call).await.value();
        assert!(value.ends_with(nothing), "{value}");
    }
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scratch_is_one_bound_for_all_places_and_each_worker_has_its_own() {
    let stage = stage(true).await;
    let ask = Ask {
        scratch: ByteCount::mib(8),
        ..Ask::default()
    };
    let source = "def f():\n    import errno, os\n    wrote, named = 0, []\n    \
                  for p in ['.', '/tmp', '/dev/shm']:\n        try:\n            \
                  with open(p + '/big', 'wb', 0) as file:\n                \
                  while True: wrote += file.write(bytes(1 << 16))\n        \
                  except OSError as e: named.append(errno.errorcode[e.errno])\n    \
                  return wrote >> 20, named";
    let f = stage.asking(source, &["()"], ask);
    for _ in 0..2 {
        let full = "['ENOSPC', 'ENOSPC', 'ENOSPC']";
        let value = f.call(0).await.value();
        assert!(
            value == format!("(7, {full})") || value == format!("(8, {full})"),
            "{value}"
        );
    }
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_inside_reads_or_traces_the_template_or_a_neighbour() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let source = "def f(wait):\n    import ctypes, os, time\n    time.sleep(wait)\n    me, parent = os.getpid(), os.getppid()\n    \
                  libc, can = ctypes.CDLL(None, use_errno=True), []\n    \
                  for pid in [int(p) for p in os.listdir('/proc') if p.isdigit()]:\n        \
                  try: comm, owner = open(f'/proc/{pid}/comm').read(), os.readlink(f'/proc/{pid}/root')\n        \
                  except OSError: owner = ''\n        \
                  if pid == me: continue\n        \
                  if pid != parent and not wait: continue\n        \
                  if owner: can.append((pid, 'root'))\n        \
                  for name in ['mem', 'environ', 'maps', 'fd/0', 'cwd/x']:\n            \
                  try: open(f'/proc/{pid}/{name}', 'rb').close()\n            \
                  except (FileNotFoundError, ProcessLookupError): can.append((pid, name, 'is there'))\n            \
                  except PermissionError: pass\n            else: can.append((pid, name))\n        \
                  if libc.ptrace(16, pid, 0, 0) == 0: can.append((pid, 'ptrace'))\n        \
                  if libc.process_vm_readv(pid, None, 0, None, 0, 0) == 0: can.append((pid, 'readv'))\n    \
                  return parent != me, can";
    for tier in [Tier::MicroVm, Tier::Process] {
        let home = dir.path().join(format!("{tier:?}"));
        std::fs::create_dir(&home).unwrap();
        let mut config = config(&network, &home);
        config.strongest_tier = Some(tier);
        let node = Node::start(&network, config).await;
        let f = Function::new(&network, source, &["(0,)", "(0.3,)"], Ask::default());
        assert_eq!(f.call(0).await.value(), "(True, [])");
        if network.seen.lock().spec.as_ref().unwrap().tier == Tier::Namespaces {
            // All that it sees there are its template and its neighbours.
            let calls = f.submit(1, 2).await;
            for call in &calls {
                assert_eq!(f.outcome(call).await.value(), "(True, [])");
            }
        }
        node.stop().await;
        *network.seen.lock() = Default::default();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_capability_and_no_mount_is_left_to_a_task() {
    let stage = stage(true).await;
    let source = "def f():\n    import ctypes, os\n    libc = ctypes.CDLL(None, use_errno=True)\n    \
                  held = {l.split()[0]: int(l.split()[1], 16) for l in open('/proc/self/status') if l.startswith('Cap')}\n    \
                  tried = {'unshare': libc.unshare(0x20000), 'mount': libc.mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None),\n             \
                  'umount': libc.umount2(b'/tmp', 2)}\n    \
                  return [k for k in ('CapPrm:', 'CapEff:', 'CapInh:', 'CapAmb:') if held[k]], [k for k in tried if tried[k] == 0]";
    let f = stage.function(source, &["()"]);
    assert_eq!(f.call(0).await.value(), "([], [])");
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_lies_about_its_time_is_measured() {
    let stage = stage(true).await;
    // Finds its worker on the stack and answers for it: no time at all, no processor time, no memory.
    let source = "def f(lies):\n    import struct, sys, time\n    frame = sys._getframe()\n    \
                  while 'self' not in frame.f_locals: frame = frame.f_back\n    worker = frame.f_locals['self']\n    \
                  honest = type(worker).transmit\n    def transmit(head, body):\n        \
                  if head[0] == 2:\n            fields = list(struct.unpack('<BBHIIQQQQ', head))\n            \
                  fields[3] = fields[4] = 0\n            fields[6] = fields[7] = 1\n            \
                  head = struct.pack('<BBHIIQQQQ', *fields)\n        honest(worker, head, body)\n    \
                  if lies: worker.transmit = transmit\n    \
                  elif 'transmit' in vars(worker): del worker.transmit\n    \
                  space = bytearray(b'x') * (40 << 20)\n    until = time.process_time() + 0.3\n    \
                  while time.process_time() < until: pass\n    time.sleep(0.7)\n    return len(space)";
    let f = stage.function(source, &["(True,)", "(False,)"]);
    for n in [1, 0, 0] {
        let outcome = f.call(n).await;
        assert_eq!(outcome.value(), (40 << 20).to_string());
        let told = outcome.completion;
        let ran = told.ended_ms - told.started_ms;
        assert!((950..20_000).contains(&ran), "{ran}");
        assert!((280..=2 * ran).contains(&told.cpu_ms), "{}", told.cpu_ms);
        assert!(told.peak_memory > 30 << 20, "{}", told.peak_memory);
    }
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_sandbox_says_reaches_its_tenant_and_nobody_between() {
    const PLANTED: &str = "planted-4f1d0c2be7a9";
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let mut config = config(&network, dir.path());
    config.strongest_tier = Some(Tier::Process);
    let node = Node::start(&network, config).await;
    // The template's own program, which now says a word and fails.
    let state = dir.path().join("state").canonicalize().unwrap();
    let elsewhere = Digest::of(state.join("").as_os_str().as_encoded_bytes()).to_string();
    let elsewhere = std::path::Path::new("/var/lib/farlane/nodes").join(&elsewhere[..16]);
    let shared = [state.join("shared"), elsewhere];
    let shared = shared.iter().find(|dir| dir.exists()).unwrap();
    let template = shared.join("worker/lib/farlane_template.py");
    std::fs::write(&template, format!("raise SystemExit('{PLANTED}')\n")).unwrap();
    let f = Function::new(&network, "def f(): return 1", &["()"], Ask::default());
    let call = f.submit(0, 1).await.remove(0);
    let outcome = f.outcome(&call).await;
    assert_eq!(outcome.exit.kind, ExitKind::Lost(LostCause::Sandbox));
    assert!(
        outcome.exit.message.contains("attempt's log"),
        "{outcome:?}"
    );
    let (log, _) = f.printed(&call).await;
    assert!(log.contains(PLANTED), "{log}");
    {
        let seen = network.seen.lock();
        let all = format!("{:?} {:?} {:?}", seen.batches, seen.logs, seen.hellos);
        assert!(!all.contains(PLANTED));
    }
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_of_folders_too_deep_for_a_path_or_closed_to_their_owner() {
    let dir = tempfile::tempdir().unwrap();
    let network = Network::start(true).await;
    let source = "def f(leaves):\n    import os\n    here, seen = os.getcwd(), os.listdir('.')\n    if leaves:\n        \
                  for _ in range(1_500):\n            os.mkdir('a-name-of-some-length'); os.chdir('a-name-of-some-length')\n        \
                  open('secret', 'w').write('x')\n        os.chdir(here)\n        \
                  for mode in (0, 0o200, 0o400, 0o600):\n            os.makedirs(f'closed-{mode}/in/.lifted-0')\n            \
                  os.chmod(f'closed-{mode}/in', mode); os.chmod(f'closed-{mode}', mode)\n        \
                  os.chmod('.', 0)\n    return here, seen, os.getpid()";
    for tier in [Tier::MicroVm, Tier::Process] {
        let home = dir.path().join(format!("{tier:?}"));
        std::fs::create_dir(&home).unwrap();
        let mut config = config(&network, &home);
        config.strongest_tier = Some(tier);
        let node = Node::start(&network, config).await;
        let f = Function::new(&network, source, &["(True,)", "(False,)"], Ask::default());
        let first = f.call(0).await.value();
        // The same worker, in the same folder, and nothing in it.
        assert!(first.contains(", [], "), "{first}");
        assert_eq!(f.call(1).await.value(), first);
        node.stop().await;
        *network.seen.lock() = Default::default();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_task_left_very_much_is_replaced_and_nobody_waits_for_it() {
    let stage = stage(true).await;
    let source = "def f(wait, files, mib):\n    import os, time\n    seen = len(os.listdir('/tmp'))\n    \
                  time.sleep(wait)\n    for i in range(files): open(f'/tmp/{i}', 'w').close()\n    \
                  open('/dev/shm/x', 'wb').write(bytes(mib << 20))\n    return seen, os.getpid()";
    let f = stage.function(source, &["(0.2, 5_000, 0)", "(0.2, 0, 80)", "(0, 1, 1)"]);
    let spec = stage.network.seen.lock().spec.clone().unwrap();
    for n in [0, 1] {
        let many = f.submit(n, 1).await.remove(0);
        stage
            .network
            .until("begun", |seen| {
                seen.started.contains(&many.at).then_some(())
            })
            .await;
        // Sent behind it while it runs, and after it.
        let behind = f.submit(2, 20).await;
        let pid = f.outcome(&many).await.value();
        let mut others = vec![f.call(2).await.value()];
        for call in &behind {
            others.push(f.outcome(call).await.value());
        }
        assert!(others.iter().all(|value| value.starts_with("(0, ")));
        assert!(pid.starts_with("(0, "));
        if spec.tier == Tier::Namespaces {
            assert!(!others.contains(&pid), "{pid} {others:?}");
        }
    }
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_s_working_folder_is_not_the_next_one_s() {
    let stage = stage(true).await;
    let source = "def f():\n    import os\n    here = os.getcwd()\n    os.chdir('/usr')\n    return here, os.getpid()";
    let f = stage.function(source, &["()"]);
    let first = f.call(0).await.value();
    assert!(!first.contains("/usr"), "{first}");
    assert_eq!(f.call(0).await.value(), first);
    stage.node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_messages_and_shut_sockets_are_violations_and_a_false_last_word_is_the_last() {
    let stage = stage(true).await;
    // Finds its worker on the stack.
    let source = "def f(what):\n    import os, struct, sys, time\n    frame = sys._getframe()\n    \
                  while 'self' not in frame.f_locals: frame = frame.f_back\n    worker = frame.f_locals['self']\n    \
                  if what == 'empty': worker.sock.send(b'')\n    if what == 'shut': worker.sock.shutdown(1)\n    \
                  if what in ('empty', 'shut'): time.sleep(600)\n    honest = type(worker).transmit\n    \
                  def transmit(head, body):\n        head = bytearray(head)\n        \
                  if head[0] == 2: head[2] = 1\n        honest(worker, head, body)\n    \
                  if what == 'last': worker.transmit = transmit\n    return os.getpid()";
    let f = stage.function(source, &["('empty',)", "('shut',)", "('last',)", "('',)"]);
    for n in [0, 1] {
        let exit = f.call(n).await.exit;
        assert_eq!(exit.kind, ExitKind::Lost(LostCause::Sandbox));
        assert!(exit.message.contains("broke its protocol"), "{exit:?}");
    }
    let last = f.call(2).await.value();
    assert_ne!(f.call(3).await.value(), last);
    stage.node.stop().await;
}
