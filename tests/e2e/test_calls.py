"""Calls as people make them: values, exceptions, output, options, threads and asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import subprocess
import sys
import threading

import farlane as fl
import numpy as np
import pytest
from network import RESULT_SECONDS, wait_for


class Refused(Exception):
    """An exception with fields."""

    def __init__(self, code, detail):
        super().__init__(code, detail)
        self.code, self.detail = code, detail


def raise_refused(code):
    try:
        raise KeyError("inner")
    except KeyError as cause:
        raise Refused(code, {"why": "test"}) from cause


def speak():
    import sys

    print("to stdout")
    print("to stderr", file=sys.stderr)


def nap():
    import time

    time.sleep(1)


def where():
    import farlane

    context = farlane.context()
    return context.id, context.attempt, context.region, os.getpid()


def test_values_of_every_kind_come_back(client):
    values = [None, True, -(10**30), 1.5, "ü", b"\0\xff", [1, [2]], (1, (2,)), {"a": {1, 2}}, range(3), 2 + 3j]
    assert client.gather([client.submit(lambda value: value, value) for value in values]) == values


def test_bytes_small_and_large_come_back(client):
    for size in (0, 100, 20_000, 1 << 20, 20 << 20):
        value = os.urandom(size)
        assert client.submit(lambda b: b[::-1], value).result(timeout=RESULT_SECONDS) == value[::-1]


def test_arrays_small_and_large_come_back(client):
    client = client.with_options(env=fl.Env(requirements=["numpy==" + np.__version__]))
    for count in (0, 10, 200_000, 2_000_000):
        array = np.arange(count, dtype=np.float64).reshape(2, -1)
        back = client.submit(lambda a: a * 2, array).result(timeout=120)
        np.testing.assert_array_equal(back, array * 2)


def test_arrays_stay_their_own_and_writable(client):
    client = client.with_options(env=fl.Env(requirements=["numpy==" + np.__version__]))

    def mark(first, again, fixed):
        twice = first is again
        first[0] = 7
        return twice, fixed.flags.writeable, {"first": first, "same": first, "fixed": fixed}

    array, fixed = np.zeros(300_000), np.ones(300_000)
    fixed.flags.writeable = False
    twice, writeable, back = client.submit(mark, array, array, fixed).result(timeout=120)
    assert twice and not writeable
    assert array[0] == 0 and back["first"][0] == 7 and back["same"] is back["first"]
    back["first"][1] = 8
    assert not back["fixed"].flags.writeable and back["fixed"].all()


def test_large_buffers_keep_their_type(client):
    value = bytearray(os.urandom(2 << 20))
    for kind in (bytes, bytearray):
        back = client.submit(lambda b: b, kind(value)).result(timeout=RESULT_SECONDS)
        assert type(back) is kind and back == value


def test_keywords_go_to_the_function(client):
    future = client.submit(lambda *, timeout, memory: (timeout, memory), timeout=3, memory="x")
    assert future.result(timeout=RESULT_SECONDS) == (3, "x")


def test_exceptions_keep_type_fields_cause_and_frames(client):
    future = client.submit(raise_refused, 7)
    with pytest.raises(Refused) as caught:
        future.result(timeout=RESULT_SECONDS)
    assert (caught.value.code, caught.value.detail) == (7, {"why": "test"})
    assert isinstance(caught.value.__cause__, KeyError)
    text = future.traceback()
    assert "raise_refused" in text and "raise Refused(code" in text


class Strict(Exception):
    def __init__(self, what, *, code):
        super().__init__(f"{what} ({code})")
        self.code = code


def test_exceptions_of_any_constructor_and_groups_of_them_arrive(client):
    def fail():
        try:
            raise Strict("disk", code=7)
        except Strict as error:
            error.hint = {"mount": "/data"}
            raise

    with pytest.raises(Strict) as caught:
        client.submit(fail).result(timeout=RESULT_SECONDS)
    assert (str(caught.value), caught.value.code, caught.value.hint) == ("disk (7)", 7, {"mount": "/data"})
    if sys.version_info < (3, 11):
        return

    def fail_twice():
        errors = []
        for work in (fail, lambda: {}["missing"]):
            try:
                work()
            except Exception as error:
                errors.append(error)
        raise ExceptionGroup("two", errors)  # noqa: F821

    error = client.submit(fail_twice).exception(timeout=RESULT_SECONDS)
    strict, missing = error.exceptions
    assert (type(strict), strict.code, type(missing), missing.args) == (Strict, 7, KeyError, ("missing",))


def test_a_class_of_the_main_module_is_the_same_class_again(network):
    script = (
        "import farlane as fl\n"
        "class Odd(Exception):\n"
        "    def __init__(self, *, n): super().__init__(f'odd {n}'); self.n = n\n"
        "def fail(): raise Odd(n=3)\n"
        "with fl.Client() as client:\n"
        "    try: client.submit(fail).result(timeout=60)\n"
        "    except Odd as error: print(type(error) is Odd, error, error.n)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], env=network.env, capture_output=True, text=True, timeout=120)
    assert done.stdout == "True odd 3 3\n", done.stderr


def test_tasks_say_that_they_have_no_network_and_know_the_errors(client):
    def submit_more():
        import farlane

        return farlane.Client()

    with pytest.raises(RuntimeError, match="farlane.Client is not there inside a task, which has no network"):
        client.submit(submit_more).result(timeout=RESULT_SECONDS)

    def give_up():
        import farlane

        try:
            raise farlane.TaskTimeout("too late")
        except TimeoutError as error:
            raise farlane.TaskError("gave up") from error

    error = client.submit(give_up).exception(timeout=RESULT_SECONDS)
    assert type(error) is fl.TaskError and type(error.__cause__) is fl.TaskTimeout and str(error) == "gave up"


def test_output_of_both_streams_is_kept(client):
    future = client.submit(speak)
    future.result(timeout=RESULT_SECONDS)
    text = wait_for(lambda: (t := "".join(future.logs())) if "stderr" in "".join(future.logs()) else "", "the output", 15)
    assert "to stdout\n" in text and "to stderr\n" in text


def test_output_follows_while_it_runs(client):
    def chatter():
        import time

        for n in range(5):
            print("line", n, flush=True)
            time.sleep(0.1)

    assert "".join(client.submit(chatter).logs(follow=True)).split("\n")[:5] == [f"line {n}" for n in range(5)]


def test_the_program_prints_output_too(network, client):
    future = client.submit(speak)
    future.result(timeout=RESULT_SECONDS)
    wait_for(lambda: "to stdout" in network.cli("logs", future.id), "the output", 15)


def test_a_task_knows_itself(client):
    future = client.submit(where)
    id, attempt, region, _ = future.result(timeout=RESULT_SECONDS)
    assert (id, attempt, region) == (future.id, 1, "local")


def test_explanations_name_terms_and_reasons(network, client):
    future = client.submit(pow, 2, 2)
    future.result(timeout=RESULT_SECONDS)
    said = network.json("explain", future.id)
    assert said["phase"] == "finished" and said["summary"]
    impossible = client.with_options(regions=["mars-*"]).submit(pow, 2, 2)
    with pytest.raises(fl.Infeasible):
        impossible.result(timeout=RESULT_SECONDS)
    assert "mars" in str(impossible.explain()) or "region" in str(impossible.explain())
    running = client.submit(nap)
    wait_for(running.running, "the task to run", 30)
    explanation = running.explain()
    assert explanation.node_name and explanation.terms, explanation
    assert explanation.node_name in str(explanation)
    running.result(timeout=RESULT_SECONDS)


def test_decorated_functions_run_here_and_there(network):
    @fl.remote
    def plain(x):
        return x + 1

    @fl.remote(memory="256MiB", max_retries=0)
    def with_options(x):
        return x + 2

    with network.client() as client:
        assert plain(1) == 2 and with_options(1) == 3
        assert client.submit(plain, 1).result(timeout=RESULT_SECONDS) == 2
        assert client.submit(with_options.options(num_cpus=0.5), 1).result(timeout=RESULT_SECONDS) == 3


def test_an_unknown_option_names_the_nearest(client):
    with pytest.raises(fl.OptionError, match="max_retries"):
        client.with_options(max_retrys=3)


def test_a_rebound_global_is_seen(client):
    box = {"n": 1}

    def read():
        return box["n"]

    assert client.submit(read).result(timeout=RESULT_SECONDS) == 1
    box = {"n": 2}
    assert client.submit(read).result(timeout=RESULT_SECONDS) == 2


def test_standard_wait_and_as_completed_work(client):
    futures = [client.submit(pow, 2, n) for n in range(20)]
    done, left = concurrent.futures.wait(futures, timeout=RESULT_SECONDS)
    assert len(done) == 20 and not left
    again = [client.submit(pow, 3, n) for n in range(20)]
    assert {f.result() for f in concurrent.futures.as_completed(again, timeout=RESULT_SECONDS)} == {
        3**n for n in range(20)
    }
    assert sorted(f.result() for f in client.as_completed(client.submit(pow, 2, n) for n in range(5))) == [1, 2, 4, 8, 16]


def test_futures_are_awaitable(client):
    async def main():
        return await asyncio.gather(*(client.submit(pow, 2, n) for n in range(10)))

    assert asyncio.run(main()) == [2**n for n in range(10)]


def test_threads_share_a_client(client):
    results: dict[int, int] = {}

    def work(n):
        results[n] = sum(f.result(timeout=RESULT_SECONDS) for f in [client.submit(pow, n, 2) for _ in range(20)])

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    [t.start() for t in threads]
    [t.join(RESULT_SECONDS) for t in threads]
    assert results == {n: 20 * n * n for n in range(8)}


def test_map_returns_exceptions_where_asked(client):
    def check(x):
        if x == 2:
            raise ValueError(x)
        return x

    out = list(client.map(check, range(4), return_exceptions=True))
    assert out[:2] == [0, 1] and isinstance(out[2], ValueError) and out[3] == 3
    assert sorted(client.map(pow, [2] * 5, range(5), order_outputs=False, chunksize=2)) == [1, 2, 4, 8, 16]


def test_an_idempotency_key_is_one_task(network):
    with network.client() as client:
        keyed = client.with_options(idempotency_key="once")
        first = keyed.submit(os.urandom, 8).result(timeout=RESULT_SECONDS)
    with network.client() as other:
        keyed = other.with_options(idempotency_key="once")
        assert keyed.submit(os.urandom, 8).result(timeout=RESULT_SECONDS) == first


def test_an_environment_is_built_and_used(client):
    env = fl.Env(requirements=["six==1.17.0"])

    def version():
        import six

        return six.__version__

    assert client.with_options(env=env).submit(version).result(timeout=120) == "1.17.0"
    with pytest.raises(ModuleNotFoundError):
        client.submit(version).result(timeout=RESULT_SECONDS)


def test_an_environment_that_cannot_be_says_why(client):
    env = fl.Env(requirements=["farlane-no-such-package==9"])
    with pytest.raises(fl.EnvBuildFailed, match="farlane-no-such-package"):
        client.with_options(env=env).submit(pow, 2, 2).result(timeout=120)


def test_costs_and_receipts(fresh):
    network = fresh("--price", "3.6").start()

    def nap():
        import time

        time.sleep(0.5)

    with network.client() as client:
        future = client.submit(nap)
        future.result(timeout=RESULT_SECONDS)
        # Half a second of a core at $3.60 an hour is 500 millionths.
        assert 0.0004 <= future.cost <= 0.01
        receipt = future.receipt
        assert receipt.region == "local" and receipt.cost == future.cost and receipt.seconds >= 0.45
        assert receipt.policy == "balanced" and receipt.runner_up is None
        terms = {name: dollars for name, dollars, _ in receipt.terms}
        assert {"price", "run", "start", "carbon", "risk"} <= set(terms) and all(d > 0 for d in terms.values())
        print(receipt)
        quick = client.with_options(policy="fast", flops=1e9).submit(nap)
        quick.result(timeout=RESULT_SECONDS)
        assert quick.receipt.policy == "fast"
        said = network.json("explain", quick.id)
        assert said["policy"] == "fast" and {t["name"] for t in said["terms"]} == {t[0] for t in quick.receipt.terms}
        with pytest.raises(fl.OptionError, match="did you mean 'green'"):
            client.with_options(policy="gren").submit(nap)
