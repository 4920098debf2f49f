"""Run independent tasks in this process, in several processes, or on a Ray cluster.

A worker imports TensorFlow once, which takes seconds, and then runs one task after another. It has
a fixed number of threads. So workers do not compete for processors, and a task gives the same
numbers wherever it runs.
"""

from __future__ import annotations

import collections
import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import signal
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal, NamedTuple

from keras_disrnn.utils.checks import check_integer
from keras_disrnn.utils.quiet import import_tensorflow

ENGINES = ("inline", "local", "ray")

POLL_SECONDS = 5.0
"""Seconds between two calls of `waiting` while no task ends."""

MAX_TASKS_PER_WORKER = 50
"""A worker is replaced after this many tasks, because TensorFlow keeps some memory of each fit."""

Task = tuple[Any, ...]


class WorkerDied(RuntimeError):
    """The worker process of a task ended before the task, in every attempt."""


class Outcome(NamedTuple):
    """How a task ended.

    Attributes:
        task: The task.
        value: The return value of the function.
        error: The exception of the function, or `None`.
        traceback: The traceback of the exception, as text.
    """

    task: Task
    value: Any = None
    error: Exception | None = None
    traceback: str = ""


def run_tasks(
    function: Callable[..., Any],
    tasks: Iterable[Task],
    *,
    engine: Literal["inline", "local", "ray"] = "local",
    workers: int | None = None,
    threads: int = 1,
    retries: int = 2,
    started: Callable[[Task], Any] | None = None,
    waiting: Callable[[], Any] | None = None,
) -> Iterator[Outcome]:
    """Call a function on each task and yield the outcomes as tasks end.

    If the worker process of a task dies, the task starts again in a new process. A function that
    keeps its state in a file can resume there. Workers end when this process ends, for whatever
    reason.

    Args:
        function: A function of a module, so that another process can import it.
        tasks: Tuples of positional arguments of the function. They must be picklable.
        engine: `"inline"` runs one task after another in this process, with its threads. `"local"`
            uses processes of this machine. `"ray"` uses the cluster at the environment variable
            `RAY_ADDRESS`, or a Ray on this machine if it is not set. The package and all files that
            tasks use must exist on each machine of the cluster.
        workers: Number of tasks at a time; `None` for the number of processors divided by
            `threads`.
        threads: Number of threads of each worker; on a cluster also its number of processors.
        retries: How often a task is started again after its worker died.
        started: Function that receives a task when a worker starts it.
        waiting: Function that is called every few seconds while no task ends.

    Yields:
        An `Outcome` for each task. A task that raises does not stop the others.

    Raises:
        ValueError: If the engine is unknown or not installed, or a number is out of range.

    Example:

    >>> from keras_disrnn.experiments.workers import run_tasks
    >>> [outcome.value for outcome in run_tasks(pow, [(2, 3), (3, 2)], engine="inline")]
    [8, 9]
    """
    check_engine(engine, workers=workers, threads=threads, retries=retries)
    started, waiting = started or (lambda task: None), waiting or (lambda: None)
    tasks = list(tasks)
    if engine == "inline":
        for task in tasks:
            started(task)
            yield Outcome(task, *_attempt(function, task))
    else:
        run = _run_local if engine == "local" else _run_ray
        yield from run(function, tasks, workers, threads, retries, started, waiting)


def check_engine(
    engine: str, *, workers: int | None = None, threads: int = 1, retries: int = 2
) -> None:
    """Check the arguments of `run_tasks`.

    Args:
        engine: The engine.
        workers: Number of tasks at a time.
        threads: Number of threads of each worker.
        retries: How often a task is started again.

    Raises:
        ValueError: If the engine is unknown or not installed, or a number is out of range.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine: expected one of {', '.join(ENGINES)}, got {engine!r}")
    if workers is not None:
        check_integer("workers", workers, 1)
    check_integer("threads", threads, 1)
    check_integer("retries", retries, 0)
    if engine == "ray":
        _import_ray()


# === Processes of this machine ===


def _run_local(
    function: Callable[..., Any],
    tasks: list[Task],
    workers: int | None,
    threads: int,
    retries: int,
    started: Callable[[Task], Any],
    waiting: Callable[[], Any],
) -> Iterator[Outcome]:
    if workers is None:
        from keras_disrnn import native

        workers = max(1, native.processor_count() // threads)
    left = collections.deque((task, 0) for task in tasks)
    free = [_Process(function, threads) for _ in range(min(workers, len(tasks)))]
    busy: dict[Any, tuple[_Process, Task, int]] = {}
    try:
        while left or busy:
            while left and free:
                process = free.pop()
                task, deaths = left.popleft()
                started(task)
                process.begin(task)
                busy[process.connection] = process, task, deaths
            ready = multiprocessing.connection.wait(busy, POLL_SECONDS)
            if not ready:
                waiting()
            for connection in ready:
                process, task, deaths = busy.pop(connection)
                result = process.result()
                if result is not None:
                    if process.num_tasks >= MAX_TASKS_PER_WORKER and left:
                        process.end()
                        process = _Process(function, threads)
                    free.append(process)
                    yield Outcome(task, *result)
                    continue
                code = process.end()
                free.append(_Process(function, threads))
                if deaths < retries:
                    left.appendleft((task, deaths + 1))
                else:
                    yield Outcome(task, error=_died(deaths + 1, f"exit code {code}", code))
    finally:
        for process in [*free, *(process for process, _, _ in busy.values())]:
            process.end()


class _Process:
    """A worker process, and this process' end of the pipe to it."""

    def __init__(self, function: Callable[..., Any], threads: int) -> None:
        # TensorFlow's threads do not survive a fork, so start a new process.
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self._process = context.Process(
            # As bytes, so that the worker imports TensorFlow before the function's module does.
            target=_serve,
            args=(theirs, pickle.dumps(function), threads),
            daemon=True,
        )
        self._process.start()
        # Close our copy of the other end. Then the pipe ends when the worker dies.
        theirs.close()
        self.num_tasks = 0

    def begin(self, task: Task) -> None:
        """Send a task to the worker."""
        self.num_tasks += 1
        with contextlib.suppress(OSError):  # The worker has died, as `result` will report.
            self.connection.send(task)

    def result(self) -> tuple[Any, Exception | None, str] | None:
        """Return what `_attempt` returned, or `None` if the process died."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            return None

    def end(self) -> int | None:
        """End the process and return its exit code."""
        self._process.kill()
        self._process.join()
        self.connection.close()
        return self._process.exitcode


def _serve(connection: Any, pickled: bytes, threads: int) -> None:
    # Ctrl-C reaches every process of the terminal. The parent process ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    use_threads(threads)
    function = pickle.loads(pickled)
    while True:
        try:
            task = connection.recv()
        except EOFError:
            return
        connection.send(_attempt(function, task))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def use_threads(threads: int) -> None:
    """Limit TensorFlow and the native passes of this process to some threads.

    Args:
        threads: Number of threads. Call the function before anything is computed.
    """
    import_tensorflow()
    import tensorflow as tf

    from keras_disrnn import native

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    native.yield_processors()


def _attempt(function: Callable[..., Any], task: Task) -> tuple[Any, Exception | None, str]:
    """Return the last three fields of an `Outcome`, which another process can read."""
    try:
        return function(*task), None, ""
    except Exception as error:
        return None, _picklable(error), traceback.format_exc()


def _picklable(error: Exception) -> Exception:
    try:
        return pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")


def _died(times: int, reason: str, code: int | None = None) -> WorkerDied:
    count = "once" if times == 1 else f"{times} times"
    hint = "most often the machine ran out of memory; use fewer workers"
    if code == 1:
        hint = (
            "it printed the reason; a script must start workers below "
            '`if __name__ == "__main__":`, because each worker imports it'
        )
    return WorkerDied(
        f"the worker process died {count} in this task (the last time: {reason}); {hint}"
    )


# === Ray ===


def _import_ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "engine: expected the package ray for the engine 'ray', got none; install it with pip "
            "install 'keras-disrnn[ray]', or use the engine 'local'"
        ) from error
    return ray


def _run_ray(
    function: Callable[..., Any],
    tasks: list[Task],
    workers: int | None,
    threads: int,
    retries: int,
    started: Callable[[Task], Any],
    waiting: Callable[[], Any],
) -> Iterator[Outcome]:
    ray = _import_ray()
    starts_ray = not ray.is_initialized()
    if starts_ray:
        machine = {}
        if not os.environ.get("RAY_ADDRESS"):
            # "local": do not look for the remains of a cluster that was killed.
            machine = {
                "address": "local",
                "num_cpus": workers and workers * threads,
                "include_dashboard": False,
            }
        ray.init(log_to_driver=False, **machine)
    try:
        if workers is None:
            workers = max(1, int(ray.cluster_resources().get("CPU", 1) // threads))
        remote = ray.remote(num_cpus=threads, max_retries=retries, max_calls=MAX_TASKS_PER_WORKER)(
            _attempt_in_ray
        )
        left = collections.deque(tasks)
        busy: dict[Any, Task] = {}
        while left or busy:
            while left and len(busy) < workers:
                task = left.popleft()
                started(task)
                busy[remote.remote(function, task, threads)] = task
            ready, _ = ray.wait(list(busy), timeout=POLL_SECONDS)
            if not ready:
                waiting()
            for reference in ready:
                task = busy.pop(reference)
                try:
                    yield Outcome(task, *ray.get(reference))
                except ray.exceptions.RayError as error:
                    reason = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                    yield Outcome(task, error=_died(retries + 1, reason))
    finally:
        if starts_ray:
            ray.shutdown()


def _attempt_in_ray(
    function: Callable[..., Any], task: Task, threads: int
) -> tuple[Any, Exception | None, str]:
    use_threads(threads)
    return _attempt(function, task)
