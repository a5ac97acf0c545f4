//! Stories of GPUs and named resources: which a lease holds, whose they are, and what a restart remembers.

use farlane_model::*;
use farlane_state::*;
use farlane_units::MilliGpu;

use crate::world::*;
use crate::*;

fn on_gpus(gpus: u32) -> TaskSpec {
    let mut spec = task_spec("gpu");
    spec.resources.gpus = MilliGpu(gpus);
    spec.resources.cpus.0 = 100;
    spec
}

/// Places of the GPUs that a task's lease holds; `None` while it is not placed.
fn places(w: &World, task: TaskId) -> Option<Vec<usize>> {
    let live = w.state.task(task)?;
    Some(live.placed?.lease.places().collect())
}

/// A node with an A100 at place 0 and a T4 at place 1, and room for one more behind.
fn world() -> World {
    let mut w = World::new();
    w.open('B');
    w.attach('B', false);
    w.story();
    w
}

#[test]
fn whole_gpus_are_leased_once_and_come_with_the_promotion() {
    let mut w = world();
    w.submit('A', 1, 4, &on_gpus(1000));
    w.story();
    w.place(&[task('A', 1), task('A', 2), task('A', 3), task('A', 4)], 1);
    assert_eq!(places(&w, task('A', 1)), Some(vec![0]));
    assert_eq!(places(&w, task('A', 2)), Some(vec![1]));
    assert_eq!(
        places(&w, task('A', 3)),
        Some(vec![]),
        "in backlog it holds none"
    );
    assert!(w.story().contains("A4 refused"));
    // The state file has it, and the next lease takes what was freed.
    w.restart();
    w.complete(1, 1, &[(task('A', 2), 1, RETURNED)]);
    assert_eq!(places(&w, task('A', 3)), Some(vec![1]));
    assert_eq!(
        w.story(),
        "CompleteBatch: counted; A3#1 to node 1, A2 finished\n",
        "the node is told which GPU is its"
    );
    w.place(&[task('A', 4)], 1);
    w.cancel(&[task('A', 1)]);
    assert_eq!(places(&w, task('A', 4)), Some(vec![0]));
}

#[test]
fn model_and_memory_choose_the_gpu() {
    let mut w = world();
    let mut t4 = on_gpus(1000);
    t4.gpu.models = vec!["H100".into(), "T4".into()];
    let mut large = on_gpus(1000);
    large.gpu.memory = Some(farlane_units::ByteCount::gib(16));
    let mut two = on_gpus(2000);
    two.gpu.models = vec!["A100".into()];
    w.submit('A', 1, 1, &t4);
    w.submit('A', 2, 1, &large);
    w.submit('A', 3, 1, &two);
    w.story();
    w.place(&[task('A', 1), task('A', 2), task('A', 3)], 1);
    assert_eq!(places(&w, task('A', 1)), Some(vec![1]));
    assert_eq!(places(&w, task('A', 2)), Some(vec![0]));
    assert!(w.story().contains("A3 refused"), "it never has two A100");
}

#[test]
fn parts_of_a_gpu_are_one_tenants() {
    let mut w = world();
    w.submit('A', 1, 3, &on_gpus(400));
    w.submit('B', 1, 2, &on_gpus(400));
    w.place(&[task('A', 1), task('B', 1), task('A', 2), task('B', 2)], 1);
    assert_eq!(places(&w, task('A', 1)), Some(vec![0]));
    assert_eq!(places(&w, task('A', 2)), Some(vec![0]), "beside its own");
    assert_eq!(
        places(&w, task('B', 1)),
        Some(vec![1]),
        "never beside another tenant's"
    );
    assert_eq!(places(&w, task('B', 2)), Some(vec![1]));
    let load = |w: &World, place| w.state.node(&node(1)).unwrap().devices().at(place);
    assert_eq!(
        load(&w, 0),
        DeviceLoad {
            held: 800,
            tenant: Some(tenant('A'))
        }
    );
    // Once the last of its tenant is gone it is anybody's.
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    w.complete(1, 1, &[(task('A', 2), 1, RETURNED)]);
    assert_eq!(load(&w, 0), DeviceLoad::default());
}

#[test]
fn named_resources_run_out_and_come_back() {
    let mut w = world();
    let mut licensed = task_spec("licensed");
    licensed.amounts = vec![Amount::new("license", 2).unwrap()];
    let mut greedy = licensed.clone();
    greedy.amounts[0].amount = 3;
    w.submit('A', 1, 2, &licensed);
    w.submit('A', 3, 1, &greedy);
    w.story();
    w.place(&[task('A', 1), task('A', 2), task('A', 3)], 1);
    let lease = |w: &World, n| {
        w.state
            .task(task('A', n))
            .unwrap()
            .placed
            .map(|p| p.lease.backlog)
    };
    assert_eq!(
        [lease(&w, 1), lease(&w, 2), lease(&w, 3)],
        [Some(false), Some(true), None]
    );
    assert_eq!(w.state.node(&node(1)).unwrap().free_amount("license"), 0);
    w.restart();
    w.complete(1, 1, &[(task('A', 1), 1, RETURNED)]);
    assert_eq!(lease(&w, 2), Some(false), "what waited has them now");
}

#[test]
fn a_node_that_lost_a_gpu_keeps_its_leases_and_takes_no_more() {
    let mut w = world();
    w.submit('A', 1, 3, &on_gpus(1000));
    w.place(&[task('A', 1), task('A', 2)], 1);
    let mut spec = node_spec(2, 1);
    spec.devices.truncate(1);
    let spec = spec.to_canonical().into();
    w.order(UpdateNode {
        node: node(1),
        boot: boot(2),
        spec,
    });
    w.stock(1, 2, 2);
    assert_eq!(places(&w, task('A', 2)), Some(vec![1]));
    w.give_back(
        task('A', 2),
        1,
        ReturnReason::Lost(LostCause::NodeRestarted),
    );
    w.place(&[task('A', 3)], 1);
    assert_eq!(
        places(&w, task('A', 3)),
        Some(vec![]),
        "behind the one that is left"
    );
    w.give_back(
        task('A', 1),
        1,
        ReturnReason::Lost(LostCause::NodeRestarted),
    );
    assert_eq!(places(&w, task('A', 3)), Some(vec![0]));
}

#[test]
fn what_runs_once_at_most_is_not_placed_where_it_would_wait() {
    let mut w = world();
    let mut once = on_gpus(1000);
    once.retry.at_most_once = true;
    once.gpu.models = vec!["A100".into()];
    w.submit('A', 1, 2, &once);
    w.submit('A', 3, 1, &on_gpus(2000));
    w.story();
    w.place(&[task('A', 1), task('A', 2), task('A', 3)], 1);
    assert_eq!(places(&w, task('A', 1)), Some(vec![0]));
    assert_eq!(places(&w, task('A', 2)), None, "a T4 is free, and no A100");
    assert_eq!(places(&w, task('A', 3)), Some(vec![]), "this one may wait");
    assert!(w.story().contains("A2 refused"));
}
