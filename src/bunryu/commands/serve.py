"""``bunryu serve``: a trained model as a web page and an HTTP service."""

from __future__ import annotations

import argparse
import gc
import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bunryu.commands.arguments import Parser, add_model_arguments
from bunryu.errors import BunryuError, ConfigError, printable
from bunryu.inference.opening import locate, open_predictor
from bunryu.keys import value_at

if TYPE_CHECKING:
    from bunryu.inference.predictor import Predictor

TOKEN_VARIABLE = "BUNRYU_TOKEN"
Address = IPv4Address | IPv6Address


def main(arguments: Sequence[str]) -> int:
    """Serve until stopped; returns the exit code."""
    args = _parser().parse_args(arguments)
    family, address = _resolve(args.host, args.port)
    ip = ip_address(address[0])
    token = _token(args.token)
    if token is None and not ip.is_loopback:
        what = f"others can reach {args.host}, and nothing would keep them out"
        fix = "add --token, or leave --host out to serve this machine only"
        raise ConfigError(what, where="--host", fix=fix)
    names = _host_names(args.allow_host, args.host)
    if token is not None:  # which no other page can know
        names += (socket.gethostname().lower(), socket.getfqdn().lower())
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        _bind(listener, address)  # before the model is loaded, so that a port in use is noticed first
        _serve(args, listener, names, token, ip)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="bunryu serve",
        description="Serve a trained model: a page to try it, and an HTTP service.",
        epilog="--token=VALUE can be read by all who list this machine's processes; "
        f"the environment variable {TOKEN_VARIABLE} cannot.",
    )
    add_model_arguments(parser)
    parser.add_argument("--name", help="what the page calls the model, instead of the run's directory")
    parser.add_argument("--host", default="127.0.0.1", help="address or name to listen on (127.0.0.1)")
    parser.add_argument("--port", type=_between(int, 0, 65535), default=8000, help="8000; 0 picks a free one")
    token = "answer only those who know it; without a value one is drawn"
    parser.add_argument("--token", nargs="?", const="", metavar="VALUE", help=token)
    names = "answer under this name too, such as a tunnel's; *.example.org for all below; repeatable"
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=names)
    wait = "milliseconds in which requests gather into a batch (2)"
    parser.add_argument("--wait", type=_between(float, 0, 1000), default=2.0, metavar="MS", help=wait)
    queue = "texts that may wait (2048); beyond, requests are answered 503"
    parser.add_argument("--queue", type=_between(int, 256, 10**6), default=2048, metavar="TEXTS", help=queue)
    after = "seconds after which a request is answered 503 (10)"
    parser.add_argument("--deadline", type=_between(float, 0.1, 3600), default=10.0, metavar="S", help=after)
    return parser


def _between(kind: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        with suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from {least} to {most}")

    return parse


def _host_names(allowed: Sequence[str], host: str) -> tuple[str, ...]:
    """The names to answer under, in lower case: the allowed ones, and the host if it is a name."""
    names = list(allowed)
    try:
        ip_address(host)
    except ValueError:
        names.append(host)
    for name in names:
        if re.fullmatch(r"(\*\.[a-z0-9-]+\.)?[a-z0-9-]+(\.[a-z0-9-]+)*", name.lower()) is None:
            fix = "the name alone, such as abc.example.org, or *.example.org for all below it"
            raise ConfigError(f"'{name}' is no host name", where="--allow-host", fix=fix)
    return tuple(name.lower() for name in names)


def _token(given: str | None) -> str | None:
    """The token to ask for: the value given, the environment's, a random one, or none."""
    token = given or os.environ.get(TOKEN_VARIABLE) or (None if given is None else secrets.token_urlsafe(24))
    if token is not None and re.fullmatch(r"[!-~]{16,}", token) is None:
        what, where = "a token has at least 16 characters, all ASCII and no blanks", TOKEN_VARIABLE
        raise ConfigError(what, where="--token" if given else where, fix="--token without a value draws one")
    return token


def _resolve(host: str, port: int) -> tuple[int, Any]:
    """Address family and socket address of a name."""
    try:
        found = socket.getaddrinfo(host or " ", port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        fix = "an address or name of this machine"
        raise ConfigError(f"no address '{host}'", where="--host", fix=fix) from None
    return found[0][0], found[0][4]


def _bind(listener: socket.socket, address: Any) -> None:
    if os.name == "posix":  # elsewhere it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        raise _cannot_listen(error, address) from None


def _cannot_listen(error: OSError, address: Any) -> BunryuError:
    what, where = (error.strerror or str(error)).lower(), f"{address[0]} port {address[1]}"
    return BunryuError(f"cannot listen: {what}", where=where, fix="another --port; --port 0 picks a free one")


def _serve(
    args: argparse.Namespace, listener: socket.socket, names: tuple[str, ...], token: str | None, ip: Address
) -> None:
    inference = ThreadPoolExecutor(1, "inference")
    opened = inference.submit(open_predictor, args.run, args.checkpoint, args.runtime, args.device)
    predictor = opened.result()
    difference = inference.submit(predictor.check_parity).result()
    from bunryu.serving.app import Settings, create_app
    from bunryu.serving.middleware import HostPolicy
    from bunryu.serving.server import Server  # after the model's checks, as importing these takes a while

    hosts = HostPolicy(ip.is_loopback, names)
    settings = Settings(
        hosts, token, args.name, positive_of(args.run),
        capacity=args.queue, wait=args.wait / 1000, deadline=args.deadline,
    )  # fmt: skip
    app = create_app(predictor, settings, write_line, inference)
    try:
        listener.listen(socket.SOMAXCONN)
    except OSError as error:
        raise _cannot_listen(error, listener.getsockname()) from None
    message = _start_message(predictor, difference, _url(ip, listener.getsockname()[1], token))
    gc.collect()
    gc.freeze()  # so that no collection looks at what exists by now between two requests
    Server(app, lambda: print(message, flush=True)).run(sockets=[listener])


def positive_of(path: Path) -> str | None:
    """The label that the run's corpus names as positive, if any."""
    run = locate(path).run
    named = None if run is None else value_at(run.config, "corpus.positive")
    return None if named is None else str(named)


def _start_message(predictor: Predictor, difference: float, url: str) -> str:
    from bunryu.encoding.encoder import unknown_tokens_warning

    metadata = predictor.metadata
    kind = "pairs of texts" if metadata.takes_pairs else "texts"
    parity = f"logits as saved within {difference:.1g}" if metadata.parity else "no parity samples"
    encoded = predictor.encode([sample.text for sample in metadata.parity])
    found = unknown_tokens_warning(encoded.count_of(predictor.unknown_id), "its samples'")
    return printable("\n  ".join([
        f"serving {predictor.name}: {' | '.join(predictor.labels)}",
        f"{kind} of at most {metadata.max_seq_length} tokens; {predictor.runtime} on {predictor.device}, "
        f"{parity}", url, "Ctrl-C stops", *(f"warning: {warning}" for warning in found),
    ]))  # fmt: skip


def _url(ip: Address, port: int, token: str | None) -> str:
    """What to open in a browser on this machine."""
    if ip.is_unspecified:
        ip = ip_address("127.0.0.1" if ip.version == 4 else "::1")
    host = f"[{ip}]" if ip.version == 6 else str(ip)
    return f"http://{host}:{port}/" + ("" if token is None else f"?token={quote(token, safe='')}")


def write_line(record: Mapping[str, object]) -> None:
    """Write a line of the log, JSON in ASCII, to standard error."""
    with suppress(OSError, ValueError):  # nobody may be reading it any more
        print(json.dumps(record), file=sys.stderr, flush=True)
