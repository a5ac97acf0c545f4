//! Work that waits on a machine behind what runs for longer than expected.

use crate::machine::{Machine, node_spec};
use crate::person::{Person, exit_kind, spec};
use crate::world::World;

#[tokio::test]
async fn what_waits_behind_long_work_goes_to_a_machine_that_joins_for_free() {
    let world = World::start().await;
    let kept = Machine::enrolled(&world, &[("disk", "nvme")], node_spec(4)).await;
    let mut busy = Machine::start(&world, kept).await;
    let mut person = Person::connect(&world).await;
    let once = spec(&world, |s| s.retry.lost = 0);
    let payloads: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
    person.submit(&world, &once, &payloads).await;
    // Two cores: two run, and two wait there, for nobody knows how long they take.
    let elsewhere = async {
        let ready = busy.ready(4).await;
        let kept = Machine::enrolled(&world, &[("disk", "nvme")], node_spec(4)).await;
        let mut idle = Machine::start(&world, kept).await;
        let came = idle.ready(2).await;
        let seqs: Vec<(u64, u32)> = came.iter().map(|a| (a.task.seq(), a.attempt)).collect();
        assert_eq!(seqs, [(3, 2), (4, 2)], "what runs stays");
        idle.complete(&came).await;
        // The first machine was told, and what it ran counts still.
        while busy.assigned.len() > 2 {
            busy.frame().await;
        }
        busy.complete(&ready[..2]).await;
    };
    let (results, ()) = tokio::join!(person.results(&world, 4), elsewhere);
    for (result, _) in &results {
        assert_eq!(exit_kind(result), farlane_wire::v1::ExitKind::Returned);
    }
}
