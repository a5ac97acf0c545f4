//! What is said, and to whom, while the server is away.

use std::time::{Duration, Instant};

use farlane::{ConnectOptions, Error, Outcome};
use farlane_wire::ErrorCode;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::mock::{Answer, Mock};
use super::{Landed, call, client, options, spec, until};

const PATIENCE: Duration = Duration::from_millis(600);

fn short() -> ConnectOptions {
    ConnectOptions {
        connect_timeout: PATIENCE,
        ..options()
    }
}

/// A way to a mock that can be cut: then nobody listens, as after a server has died.
struct Way {
    url: String,
    cut: watch::Sender<bool>,
    listener: tokio::task::JoinHandle<()>,
}

impl Way {
    async fn to(mock: &mut Mock) -> Self {
        let target = mock.identity.urls[0]
            .trim_start_matches("https://")
            .to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let (cut, is_cut) = watch::channel(false);
        let listener = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let (target, mut is_cut) = (target.clone(), is_cut.clone());
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = is_cut.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        let mut identity = (*mock.identity).clone();
        identity.urls = vec![url.clone()];
        mock.identity = std::sync::Arc::new(identity);
        Self { url, cut, listener }
    }

    async fn die(&mut self) {
        self.listener.abort();
        let _ = (&mut self.listener).await;
        let _ = self.cut.send(true);
    }

    /// The error says which server, for how long, and nothing in the words of a library.
    fn is_named(&self, error: &Error) -> String {
        let text = error.to_string();
        assert!(
            matches!(error, Error::Connection { tried, .. } if *tried >= PATIENCE),
            "{text}"
        );
        let begins = format!("no Farlane server at {} answered within ", self.url);
        assert!(
            text.starts_with(&begins) && !text.contains("within 0.0"),
            "{text}"
        );
        assert!(
            !text.contains("code: ") && !text.contains("currently unavailable"),
            "{text}"
        );
        text
    }
}

fn only_error(landed: &Landed) -> Error {
    match &landed.lock()[..] {
        [one] => match &one.outcome {
            Outcome::Failed(error) => error.clone(),
            other => panic!("no failure: {other:?}"),
        },
        other => panic!("{} landed", other.len()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn questions_end_with_the_server_and_the_time_once_it_is_gone() {
    let mut mock = Mock::start(true).await;
    let mut way = Way::to(&mut mock).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, _) = client(&mock, short()).await;
    let spec = spec(&client);
    let there = client.submit(call(&spec, 1, "x")).await.unwrap();
    assert!(client.wait_acknowledged(Duration::from_secs(20)));
    way.die().await;
    let not_there = client.submit(call(&spec, 2, "x")).await.unwrap();
    let (a, b, c, d, e, f) = tokio::join!(
        client.view(there),
        client.explain(there),
        client.logs(there, 0, false),
        client.explain(not_there),
        client.logs(not_there, 0, true),
        client.attach(not_there, 3),
    );
    for known in [a.map(drop), b.map(drop), c.map(drop)] {
        way.is_named(&known.unwrap_err());
    }
    for unknown in [d.map(drop), e.map(drop), f.map(drop)] {
        let text = way.is_named(&unknown.unwrap_err());
        assert!(text.contains("1 call is not acknowledged"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_bridges_a_server_that_comes_back() {
    let mock = Mock::start(true).await;
    let (client, _) = client(&mock, options()).await;
    let spec = spec(&client);
    let task = client.submit(call(&spec, 1, "x")).await.unwrap();
    assert!(client.view(task).await.is_ok());
    mock.knobs.lock().refuse_key = Some(ErrorCode::Unavailable);
    let waiting = client.clone();
    let asked = tokio::spawn(async move { waiting.view(task).await });
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!asked.is_finished(), "it is asked again");
    mock.knobs.lock().refuse_key = None;
    assert!(asked.await.unwrap().is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_waits_no_longer_for_a_server_that_acknowledges_nothing() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().withhold_acks = true;
    let (client, _) = client(&mock, short()).await;
    let task = client.submit(call(&spec(&client), 1, "x")).await.unwrap();
    let error = client.explain(task).await.unwrap_err();
    assert!(matches!(&error, Error::Connection { tried, .. } if *tried >= PATIENCE));
    assert!(
        error.to_string().ends_with("1 call is not acknowledged"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_acknowledged_is_counted_and_ends_with_the_same_error() {
    let mut mock = Mock::start(true).await;
    let mut way = Way::to(&mut mock).await;
    mock.knobs.lock().answer = Answer::Hold;
    let (client, landed) = client(&mock, short()).await;
    let spec = spec(&client);
    let there = client.submit(call(&spec, 1, "x")).await.unwrap();
    client.settle(Duration::from_secs(20)).await.unwrap();
    way.die().await;
    for token in 2..5 {
        client.submit(call(&spec, token, "x")).await.unwrap();
    }
    let error = client.settle(PATIENCE).await.unwrap_err();
    let text = way.is_named(&error);
    assert!(text.contains("3 calls are not acknowledged: "), "{text}");
    client.close();
    until("their ends", || landed.lock().len() == 4).await;
    for delivered in landed.lock().iter() {
        let Outcome::Failed(end) = &delivered.outcome else {
            panic!("no failure")
        };
        match delivered.attempt.task == there {
            true => assert!(
                matches!(end, Error::Closed),
                "that one goes on over there: {end}"
            ),
            false => assert_eq!(end.to_string(), text),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_closes_without_waiting_is_told_that_it_was_closed() {
    let mock = Mock::start(true).await;
    mock.knobs.lock().withhold_acks = true;
    let (client, landed) = client(&mock, options()).await;
    client.submit(call(&spec(&client), 1, "x")).await.unwrap();
    client.close();
    until("its end", || landed.lock().len() == 1).await;
    assert!(matches!(only_error(&landed), Error::Closed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_opens_streams_and_breaks_them_is_tried_ever_less_often() {
    let mock = Mock::start(true).await;
    let (_client, _) = client(&mock, options()).await;
    let opened = || mock.knobs.lock().resumes.len();
    mock.knobs.lock().hang_up = true;
    let begun = Instant::now();
    mock.cut();
    until("five more", || opened() == 6).await;
    // The first comes after one wait: 100, 200, 400, 800 and 1,600 ms, each halved at most.
    assert!(
        begun.elapsed() >= Duration::from_millis(1_550),
        "{:?}",
        begun.elapsed()
    );
}
