"""The whole of a server: the model on every rank, the web on rank 0, and an end that lets requests in hand finish."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import uvicorn

from infini_eval.checkpoint.reader import Checkpoint
from infini_eval.config import ModelSettings, Topology
from infini_eval.data.tokenizer import Tokenizer
from infini_eval.distributed.announce import Announcer
from infini_eval.distributed.launch import World, launch
from infini_eval.distributed.logging import setup_logging
from infini_eval.distributed.mesh import Mesh, MeshShape
from infini_eval.engine.fixed_decode import check_acceleration
from infini_eval.engine.native_model import load_replica, mesh_shape
from infini_eval.engine.text import check_vocabulary, end_ids, open_tokenizer
from infini_eval.errors import ConfigError, TopologyError
from infini_eval.foreign import read_text
from infini_eval.keys import hide_keys, key_from_environment, remember_keys
from infini_eval.models.load import resolve
from infini_eval.serve.app import make_app
from infini_eval.serve.replica import Order, Replica
from infini_eval.serve.scheduler import Scheduler
from infini_eval.serve.service import Service
from infini_eval.serve.settings import ServeSettings

logger = logging.getLogger(__name__)
LAST_REPLIES_S = 3.0  # for replies that are computed to leave, before the process ends
MOST_CONNECTIONS = 1_024


def serve(
    path: str,
    settings: ServeSettings,
    model: ModelSettings,
    topology: Topology,
    *,
    tokenizer: str | None = None,
    timeout_s: float = 1800.0,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a checkpoint until a signal comes; every process of a launch calls this with the same arguments.

    Args:
        on_ready: called on rank 0 with the address when requests are taken.

    Raises:
        ConfigError: the address cannot be listened at, or a setting does not fit.
        TopologyError: the processes are not one replica of the model.
    """
    setup_logging()
    key = _key(settings)
    with launch(model.device, timeout_s, grace_s=settings.grace_s + 2 * LAST_REPLIES_S, stop_is_end=True) as world:
        checkpoint = Checkpoint(path)
        mesh = Mesh.build(_mesh_shape(checkpoint, topology, world), world.rank)
        setup_logging(mesh.tag, speaks=mesh.is_leader)
        tokens = open_tokenizer(tokenizer, checkpoint)
        check_vocabulary(tokens, checkpoint)
        if settings.chat_template is not None:
            tokens.settings["chat_template"] = read_text(Path(settings.chat_template), ConfigError)
        with listening(settings) if world.is_main else contextlib.nullcontext() as listener:
            world.set_status("loading the model")
            replica = _load(checkpoint, model, mesh, tokens, world)
            world.set_status("serving")
            if listener is None:
                replica.follow()
                return
            service = _service(path, settings, tokens, replica, key)
            with answering_the_web(service, listener, world) as address, _stopping(service, world):
                on_ready(address)
                service.scheduler.work()
            replica.tell(Order("end"))


def _key(settings: ServeSettings) -> str | None:
    if settings.api_key_env is None:
        return None
    key = key_from_environment(settings.api_key_env)
    if key is None:
        raise ConfigError(
            f"--api-key-env {settings.api_key_env}: the environment has no such variable, or it is empty",
            next_step=f"export {settings.api_key_env}=...",
        )
    remember_keys({"api_key": key})
    return key


def _mesh_shape(checkpoint: Checkpoint, asked: Topology, world: World) -> MeshShape:
    if (asked.dp or 1) > 1:
        raise TopologyError(
            f"--dp {asked.dp}: a server is one replica of the model",
            valid="--dp 1",
            next_step="start several servers, each at a port of its own",
        )
    return mesh_shape(checkpoint, replace(asked, dp=1), world.world_size)


def _load(checkpoint: Checkpoint, model: ModelSettings, mesh: Mesh, tokenizer: Tokenizer, world: World) -> Replica:
    resolved = resolve(checkpoint.config, model, torch.device(world.device))
    check_acceleration(model, resolved.device, mesh.shape.tp, mesh.shape.pp)
    native = load_replica(checkpoint, model, mesh, world.device)
    return Replica(native, Announcer(world), end_ids(tokenizer, checkpoint.config), tokenizer.vocab_size)


def _service(path: str, settings: ServeSettings, tokenizer: Tokenizer, replica: Replica, key: str | None) -> Service:
    most, model = settings.max_prompt_tokens, replica.model
    if model.has_length_limit:
        most = min(most, model.max_length)
    scheduler = Scheduler(replica, tokenizer, max_batch=settings.max_batch, max_queue=settings.max_queue)
    return Service(settings.model_name or path, tokenizer, scheduler, settings, replica.vocabulary, most, key)


@contextlib.contextmanager
def listening(settings: ServeSettings) -> Iterator[socket.socket]:
    """A socket with the address, which nobody reaches yet; ConfigError where it cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        raise ConfigError(
            f"port {settings.port} of {settings.host} cannot be used: {error.strerror}",
            next_step="another one: --port 0 takes a free port",
        ) from error
    with listener:
        yield listener


@contextlib.contextmanager
def answering_the_web(service: Service, listener: socket.socket, world: World | None = None) -> Iterator[str]:
    """Take requests in a thread of its own inside the block; yields the address. The end waits for replies to leave."""
    settings = service.settings
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        lifespan="off",
        http="h11",
        loop="asyncio",
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_graceful_shutdown=int(LAST_REPLIES_S),
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_run_web, args=(server, listener, world), name="web", daemon=True)
    listener.listen()  # from here on requests may come, though the thread may not have begun
    thread.start()
    host, port = listener.getsockname()[:2]
    if not settings.on_loopback:
        listens = f"{hide_keys(host)}:{port} can be reached from other machines"
        logger.warning("%s%s", listens, "" if service.key else ", without a key: --api-key-env NAME asks for one")
    try:
        yield f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"
    finally:
        service.scheduler.fail_all("the server is stopping")
        server.should_exit = True
        thread.join(2 * LAST_REPLIES_S)


def _run_web(server: uvicorn.Server, listener: socket.socket, world: World | None) -> None:
    try:
        server.run(sockets=[listener])
    except BaseException as error:
        if world is None:
            raise
        world.abort(error)


@contextlib.contextmanager
def _stopping(service: Service, world: World) -> Iterator[None]:
    """Watch for a request to stop: nothing new is taken then, and what is not finished in time is given up."""
    over = threading.Event()

    def watch() -> None:
        while not world.stop.requested:
            if over.wait(0.1):
                return
        service.scheduler.close()
        logger.info("stopping (%s): requests in hand have %g s", world.stop.reason, service.settings.grace_s)
        if not over.wait(max(0.0, (world.stop.since or 0.0) + service.settings.grace_s - time.monotonic())):
            service.scheduler.fail_all(f"the server is stopping; {service.settings.grace_s:g} s were not enough")

    thread = threading.Thread(target=watch, name="stopping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
