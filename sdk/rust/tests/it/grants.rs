//! What a granter grants, and what it refuses to a control plane that lies.

use super::*;
use farlane::granter::Standing;
use farlane::v1;
use farlane_model::{Digest, Glob, TaskSpec};

pub async fn standing(mock: &Mock, folder: &std::path::Path) -> Standing {
    let options = ConnectOptions {
        memory: Some(mock.memory.path().to_owned()),
        ..options()
    };
    Standing::start((*mock.identity).clone(), folder, options)
        .await
        .unwrap()
}

/// One task that waits for its grant while its client is gone.
async fn orphan(mock: &Mock, retry: Retry) -> (TaskId, Bytes) {
    let (client, _) = client(mock, options()).await;
    let template = Template {
        retry,
        ..template()
    };
    let spec = client.spec(template, &client.code(b"code"), None).unwrap();
    let task = client.submit(call(&spec, 1, "x")).await.unwrap();
    until("its own grant", || mock.knobs.lock().granted.len() == 1).await;
    client.close();
    mock.cut();
    mock.knobs.lock().granted.clear();
    (task, mock.spec_of(task).unwrap())
}

/// Long enough for an answer on loopback.
async fn a_while() {
    tokio::time::sleep(Duration::from_millis(100)).await;
}

fn granted(mock: &Mock) -> Vec<u32> {
    let knobs = mock.knobs.lock();
    knobs.granted.iter().map(|(at, _)| at.attempt).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_granted_ahead_to_the_node_that_ran_the_last_one() {
    let mock = Mock::start(true).await;
    let (client, landed) = client(&mock, options()).await;
    let code = client.code(b"code");
    let usual = client.spec(template(), &code, None).unwrap();
    let retry = Retry {
        at_most_once: true,
        ..template().retry
    };
    let once = Template {
        retry,
        ..template()
    };
    let once = client.spec(once, &code, None).unwrap();
    for spec in [&usual, &once] {
        client.submit(call(spec, 1, "first")).await.unwrap();
    }
    until("both", || landed.lock().len() == 2).await;
    assert_eq!(mock.knobs.lock().ahead, 0, "where they run is not known");

    client.submit(call(&usual, 2, "asked")).await.unwrap();
    until("an idle grant", || landed.lock().len() == 3).await;
    assert_eq!(mock.knobs.lock().ahead, 1);
    client.submit(call(&once, 3, "once")).await.unwrap();
    until("one that may run once", || landed.lock().len() == 4).await;
    assert_eq!(mock.knobs.lock().ahead, 1);

    mock.knobs.lock().take_ahead = true;
    client.submit(call(&usual, 4, "not asked")).await.unwrap();
    until("nobody was asked", || landed.lock().len() == 5).await;
    let knobs = mock.knobs.lock();
    assert_eq!((knobs.ahead, knobs.refused.len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_one_node_alone_was_given_vouches_for_what_cannot_run() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, landed) = client(&mock, options()).await;
    let spec = client
        .spec(template(), &client.code(b"code"), None)
        .unwrap();
    let alone = client.submit(call(&spec, 1, "alone")).await.unwrap();
    let both = client.submit(call(&spec, 2, "both")).await.unwrap();
    until("both grants", || mock.knobs.lock().granted.len() == 2).await;
    let second = ProviderRootNode::beside(&mock);
    mock.ask_again(both, Some(&second));
    until("one node an attempt", || {
        !mock.knobs.lock().refused.is_empty()
    })
    .await;

    // Nobody signed either.
    mock.knobs.lock().answer = Answer::SafeUnsigned;
    for (count, task) in [alone, both].into_iter().enumerate() {
        mock.ask_again(task, None);
        until("its result", || landed.lock().len() == count + 1).await;
    }
    let landed = landed.lock();
    let Outcome::Returned { codec, .. } = &landed[0].outcome else {
        panic!("{:?}", landed[0].outcome);
    };
    assert_eq!(*codec, farlane::Codec::Safe);
    assert!(landed[0].receipt.node.is_some());
    let failed = &landed[1].outcome;
    assert!(
        matches!(failed, Outcome::Failed(farlane::Error::Integrity(_))),
        "{failed:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_granter_grants_once_what_may_run_once_whatever_it_is_told() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let once = Retry {
        lost: 0,
        raised: 0,
        at_most_once: true,
    };
    let (task, spec) = orphan(&mock, once).await;
    let digest = Bytes::copy_from_slice(Digest::of(&spec).as_bytes());
    let folder = tempfile::tempdir().unwrap();
    let first = standing(&mock, folder.path()).await;
    mock.ask_standing(task, 1, digest.clone());
    a_while().await;
    let early = granted(&mock);
    assert!(early.is_empty(), "nobody has said what that spec allows");
    mock.ask_standing(task, 1, spec.clone());
    until("the only grant", || granted(&mock) == vec![1u32]).await;
    assert_eq!(mock.knobs.lock().granted[0].1, Digest::of(&spec));

    // Neither its spec again, nor its digest, nor a result that nobody signed brings another.
    mock.ask_standing(task, 2, spec.clone());
    mock.claim_finished(task);
    mock.ask_standing(task, 3, digest.clone());
    a_while().await;
    assert_eq!(granted(&mock), [1]);
    first.close();
    drop(first);
    mock.cut();

    let second = standing(&mock, folder.path()).await;
    mock.ask_standing(task, 4, spec.clone());
    mock.ask_standing(task, 5, digest);
    a_while().await;
    assert_eq!(granted(&mock), [1], "grants.log outlives the process");
    assert!(second.is_serving());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standing_granter_holds_attempts_to_the_specs_own_retries() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let retry = Retry {
        lost: 1,
        raised: 0,
        at_most_once: false,
    };
    let (task, spec) = orphan(&mock, retry).await;
    let folder = tempfile::tempdir().unwrap();
    let _standing = standing(&mock, folder.path()).await;
    mock.ask_standing(task, 1, spec.clone());
    let digest = Bytes::copy_from_slice(Digest::of(&spec).as_bytes());
    for attempt in 2..=40 {
        mock.ask_standing(task, attempt, digest.clone());
    }
    let allowed = farlane_seal::grant::attempts_allowed(&retry);
    until("all that it allows", || {
        granted(&mock).len() as u32 >= allowed
    })
    .await;
    a_while().await;
    assert_eq!(granted(&mock), (1..=allowed).collect::<Vec<_>>());
    // A more generous spec is another spec: the node would see that it is not the payload's.
    let mut generous = TaskSpec::from_canonical(&spec).unwrap();
    generous.retry.lost = 60;
    mock.ask_standing(task, 50, generous.to_canonical().into());
    until("the grant of another spec", || granted(&mock).contains(&50)).await;
    let knobs = mock.knobs.lock();
    let last = knobs.granted.last().unwrap();
    assert_ne!(last.1, Digest::of(&spec));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_elsewhere_or_too_open_gets_no_grant_whatever_the_control_plane_says() {
    let mock = Mock::start(true).await; // its node: us-west, namespaces
    let (client, landed) = client(&mock, options()).await;
    let code = client.code(b"code");
    let anywhere = template().node;
    let elsewhere = NodeRequest {
        regions: vec![Glob::new("eu-*").unwrap()],
        ..anywhere.clone()
    };
    let shut_in = NodeRequest {
        tier: Tier::MicroVm,
        ..anywhere.clone()
    };
    let here = NodeRequest {
        regions: vec![Glob::new("eu-*").unwrap(), Glob::new("us-w*").unwrap()],
        ..anywhere
    };
    for (token, node) in [elsewhere, shut_in, here].into_iter().enumerate() {
        let template = Template { node, ..template() };
        let spec = client.spec(template, &code, None).unwrap();
        client.submit(call(&spec, token as u64, "x")).await.unwrap();
    }
    until("the one that may run here", || landed.lock().len() == 1).await;
    a_while().await;
    assert_eq!(landed.lock()[0].token, 2);
    let granted = mock.knobs.lock().granted.clone();
    assert_eq!((granted.len(), mock.finished()), (1, 1));
    let refused = std::mem::take(&mut mock.knobs.lock().refused);
    assert_eq!(refused.iter().map(|r| r.attempts.len()).sum::<usize>(), 2);
    assert!(
        refused
            .iter()
            .all(|r| r.reason.contains("does not meet the region"))
    );

    // A standing granter, by the spec that it is shown.
    mock.knobs.lock().answer = Answer::Hold;
    let folder = tempfile::tempdir().unwrap();
    let _standing = standing(&mock, folder.path()).await;
    for seq in 1..=3 {
        let task = client.session().task(seq);
        mock.ask_standing(task, 2, mock.spec_of(task).unwrap());
    }
    until("its grant", || mock.knobs.lock().granted.len() == 2).await;
    a_while().await;
    let granted = mock.knobs.lock().granted.clone();
    assert_eq!(granted.len(), 2);
    assert_eq!(granted[1].0.task, client.session().task(3));
    assert_eq!(mock.knobs.lock().refused.len(), 2);

    // A stranger's node is refused for every attempt that asked for it.
    mock.knobs.lock().refused.clear();
    let task = client.session().task(1);
    mock.ask_again(task, Some(&ProviderRootNode::new()));
    until("its refusal", || mock.knobs.lock().refused.len() == 1).await;
    let refused = mock.knobs.lock().refused[0].clone();
    assert_eq!(refused.attempts[0].task, task.to_bytes().to_vec());
    assert!(refused.reason.contains("provider"), "{}", refused.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_node_gets_no_more_grants_even_when_the_list_is_withheld_later() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, _) = client(&mock, options()).await;
    let spec = spec(&client);
    let task = client.submit(call(&spec, 1, "x")).await.unwrap();
    until("the first grant", || granted(&mock).len() == 1).await;
    // An older list changes nothing, whatever it names.
    mock.ask_with(task, mock.revoked(Duration::ZERO, true));
    until("the same grant again", || granted(&mock).len() == 2).await;

    let knobs = mock.knobs.clone();
    let refused = || knobs.lock().refused.len();
    let second = Duration::from_secs(1);
    mock.ask_with(task, mock.revoked(second, true));
    until("a refusal", || refused() == 1).await;
    for later in [Bytes::new(), mock.revoked(Duration::ZERO, false)] {
        let before = refused();
        mock.ask_with(task, later);
        until("another refusal", || refused() == before + 1).await;
    }
    let other = client.submit(call(&spec, 2, "y")).await.unwrap();
    until("the other's refusal", || {
        let knobs = knobs.lock();
        let of = |r: &v1::GrantRefusal| {
            r.attempts
                .iter()
                .any(|a| a.task == other.to_bytes().to_vec())
        };
        knobs.refused.iter().any(of)
    })
    .await;
    assert_eq!(granted(&mock).len(), 2);
    assert!(knobs.lock().refused[0].reason.contains("revoked"));
}

/// What was refused last, and of how many attempts.
fn last_refusal(mock: &Mock) -> (usize, String) {
    let knobs = mock.knobs.lock();
    let last = knobs.refused.last();
    last.map_or((0, String::new()), |r| (r.attempts.len(), r.reason.clone()))
}

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_withheld_for_a_day_ends_the_grants_of_its_provider() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let first = mock.revoked(Duration::ZERO, false);
    mock.show_revocations(Bytes::new());
    let (client, _) = client(&mock, options()).await;
    let spec = spec(&client);
    let task = client.submit(call(&spec, 1, "x")).await.unwrap();
    // It may still be on its way: nothing is refused for good yet, and nothing granted.
    until("a remark", || !mock.knobs.lock().refused.is_empty()).await;
    let (attempts, why) = last_refusal(&mock);
    assert!(
        attempts == 0 && why.contains("farlane nodes renew"),
        "{why}"
    );
    mock.pass(Duration::from_secs(31));
    until("a refusal", || last_refusal(&mock).0 == 1).await;
    assert!(granted(&mock).is_empty());

    // It comes, and holds for a day after it was made.
    mock.ask_with(task, first);
    until("the grant", || granted(&mock).len() == 1).await;
    mock.knobs.lock().refused.clear();
    mock.pass(DAY);
    until("another remark", || !mock.knobs.lock().refused.is_empty()).await;
    assert!(last_refusal(&mock).1.contains("older than 24 hours"));
    assert_eq!(granted(&mock).len(), 1);
    mock.ask_with(task, mock.revoked(DAY, false));
    until("the grant under a new list", || granted(&mock).len() == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_control_plane_cannot_go_back_to_an_older_list_with_the_next_client() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (first, _) = client(&mock, options()).await;
    let one = first.submit(call(&spec(&first), 1, "x")).await.unwrap();
    until("its grant", || granted(&mock).len() == 1).await;
    mock.ask_with(one, mock.revoked(Duration::from_secs(1), true));
    until("its refusal", || last_refusal(&mock).0 == 1).await;
    first.close();

    // To the next one the first list is shown, which named nobody and is fresh enough.
    mock.knobs.lock().refused.clear();
    let (second, _) = client(&mock, options()).await;
    second.submit(call(&spec(&second), 1, "y")).await.unwrap();
    until("a refusal", || last_refusal(&mock).0 == 1).await;
    let folder = tempfile::tempdir().unwrap();
    let _standing = standing(&mock, folder.path()).await;
    mock.knobs.lock().refused.clear();
    mock.ask_standing(one, 2, mock.spec_of(one).unwrap());
    until("the granter's", || last_refusal(&mock).0 == 1).await;
    assert!(last_refusal(&mock).1.contains("revoked"));
    assert_eq!(granted(&mock).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_run_once_is_not_granted_by_the_client_and_by_the_granter() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().answer = Answer::Hold;
    let folder = tempfile::tempdir().unwrap();
    let _standing = standing(&mock, folder.path()).await;
    let (client, _) = client(&mock, options()).await;
    let retry = Retry {
        lost: 0,
        raised: 0,
        at_most_once: true,
    };
    let once = Template {
        retry,
        ..template()
    };
    let code = client.code(b"code");
    let once = client.spec(once, &code, None).unwrap();
    let task = client.submit(call(&once, 1, "x")).await.unwrap();
    until("the client's grant", || granted(&mock) == [1u32]).await;
    // The same control plane asks the granter of the same user for another attempt.
    mock.ask_standing(task, 2, mock.spec_of(task).unwrap());
    until("its refusal", || last_refusal(&mock).0 == 1).await;
    assert!(
        last_refusal(&mock).1.contains("1 attempts"),
        "{}",
        last_refusal(&mock).1
    );
    // And the client again, having said that the first has ended.
    mock.knobs.lock().refused.clear();
    mock.claim_finished_and_ask(task, 3);
    a_while().await;
    assert_eq!(granted(&mock), [1]);
    // What may run again may be granted by both.
    let task = client.submit(call(&spec(&client), 2, "y")).await.unwrap();
    until("another grant", || granted(&mock).len() == 2).await;
    mock.ask_standing(task, 2, mock.spec_of(task).unwrap());
    until("the granter's", || granted(&mock) == [1, 1, 2]).await;
}
