"""The command line `llm-engine`. Imports nothing heavy before the work is known."""

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from llm_engine.contract.arguments import DEFAULT_PORT, AttentionName, ServeArguments
from llm_engine.contract.quantization import Quantization
from llm_engine.server.lifecycle import Lifecycle, process_began_s

if TYPE_CHECKING:
    from llm_engine.contract.inspection import Inspection
    from llm_engine.weights.progress import Progress

_MODEL_HELP = (
    "a folder with safetensors, a .gguf file, hf://owner/name[@revision], or s3://bucket/folder"
)


def main() -> None:
    """Run the command line; ends the process with its exit code."""
    arguments = parser().parse_args()
    code = arguments.run(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    # Not sys.exit: torch takes its time to unload, and a load that was given up may still run.
    os._exit(code)


def parser() -> argparse.ArgumentParser:
    """Return the parser of every command."""
    top = argparse.ArgumentParser(
        prog="llm-engine", description="Serve a language model, look into one, or try one."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")
    _add_serve(commands.add_parser("serve", help="serve a model over HTTP, OpenAI-style"))
    _add_inspect(commands.add_parser("inspect", help="read a model's shape, not its weights"))
    _add_generate(commands.add_parser("generate", help="continue a prompt on this machine"))
    return top


def _add_serve(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Serve a model over HTTP. Probes (/livez, /readyz, /startupz) answer from the first moment;"
        " SIGTERM lets running requests finish. Exit code 0: drained; 2: wrong usage; 3: the model"
        " cannot be served, and the last line of stderr says why and what to do."
    )
    _add_model_options(parser, needed=False)
    option = parser.add_argument
    option("--served-name", metavar="NAME", help="the model's name in requests [MODEL's last part]")
    option(
        "--simulate",
        metavar="PROFILE",
        help="take the time of a model instead of computing one: a JSON file (docs/engine.md)."
        " MODEL is then not opened and may be left out",
    )
    option("--host", default="127.0.0.1", help="address to listen on [%(default)s]")
    option("--port", type=int, default=DEFAULT_PORT, help="port to listen on [%(default)s]")
    option(
        "--drain-seconds",
        type=float,
        default=60.0,
        metavar="S",
        help="seconds that running requests get after SIGTERM [%(default)g]",
    )
    option(
        "--tpot-target-seconds",
        type=float,
        metavar="S",
        help="time per output token to keep while prompts come in [no pacing]",
    )
    option(
        "--no-prefix-caching",
        action="store_true",
        help="compute every prompt from its first token, whatever others have computed of it",
    )
    _add_tensor_parallel(parser)
    parser.set_defaults(run=_serve)


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    parser.description = "Read configuration and weight headers; needs no GPU and little memory."
    _add_model_options(parser)
    parser.add_argument(
        "--plan",
        action="store_true",
        help="say where the bytes go on this machine, and if they fit",
    )
    parser.add_argument("--json", action="store_true", help="print one line of JSON")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also write that JSON here")
    parser.set_defaults(run=_inspect)


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.description = "Continue a prompt, and say how fast."
    _add_model_options(parser)
    option = parser.add_argument
    option("--prompt", required=True, metavar="TEXT", help="what to continue")
    option("--chat", action="store_true", help="take the prompt as a message to an assistant")
    option("--max-tokens", type=int, default=128, metavar="N", help="[%(default)s]")
    option("--temperature", type=float, default=0.0, metavar="T", help="[%(default)g: greedy]")
    option("--seed", type=int, metavar="N", help="makes sampling repeatable")
    _add_tensor_parallel(parser)
    parser.set_defaults(run=_generate)


def _add_model_options(parser: argparse.ArgumentParser, needed: bool = True) -> None:
    option = parser.add_argument
    option("model", metavar="MODEL", nargs=None if needed else "?", help=_MODEL_HELP)
    option(
        "--quantization",
        choices=[quantization.value for quantization in Quantization],
        default=Quantization.NONE.value,
        help="how linear weights are kept in memory: as computed (None), in 8 bits (Int8, FP8) or "
        "in 5 (Int4); a checkpoint that is quantized already stays as it is [%(default)s]",
    )
    option("--device", default="auto", help="auto, cpu, cuda or cuda:N [%(default)s]")
    option(
        "--attention",
        choices=[name.value for name in AttentionName],
        default=AttentionName.AUTO.value,
        help="what computes attention [triton on a GPU, torch on a CPU]; invariant: to the last bit"
        " the same whatever else runs, and slow",
    )
    option(
        "--max-context-tokens",
        type=int,
        metavar="N",
        help="longest prompt plus output of one request [the model's own]",
    )
    option(
        "--kv-cache-bytes",
        type=int,
        metavar="N",
        help="bytes for keys and values [what memory allows]",
    )


def _add_tensor_parallel(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--tensor-parallel",
        type=int,
        default=1,
        metavar="N",
        help="processes that compute the model together, each on a GPU of its own [%(default)s]",
    )


def serve_arguments(options: argparse.Namespace) -> ServeArguments:
    """Return what the words after `serve` mean; raises ValueError where something is missing."""
    model = options.model or options.simulate
    if model is None:
        raise ValueError("serve needs a MODEL, or --simulate PROFILE; see llm-engine serve --help")
    return ServeArguments(
        model=model,
        served_name=options.served_name or _short_name(model),
        quantization=Quantization(options.quantization),
        port=options.port,
        host=options.host,
        device=options.device,
        attention=AttentionName(options.attention),
        max_context_tokens=options.max_context_tokens,
        kv_cache_bytes=options.kv_cache_bytes,
        drain_s=options.drain_seconds,
        tpot_target_s=options.tpot_target_seconds,
        simulate=options.simulate,
        prefix_caching=not options.no_prefix_caching,
        tensor_parallel=options.tensor_parallel,
    )


def _short_name(model: str) -> str:
    """Return the last part of a path or source, without suffixes and revision."""
    return model.rpartition("/")[2].partition("@")[0].removesuffix(".gguf").removesuffix(".json")


def _serve(options: argparse.Namespace) -> int:
    """Serve until told to stop."""
    lifecycle = Lifecycle(process_began_s())
    from llm_engine.server.log_lines import start_logging
    from llm_engine.server.process import EngineDied, LoadFailed, bind, serve
    from llm_engine.server.starting import start_engine

    start_logging()
    try:
        arguments = serve_arguments(options)
        listener = bind(arguments.host, arguments.port)
        serve(arguments, listener, lifecycle, lambda: start_engine(arguments, lifecycle))
    except (LoadFailed, EngineDied, ValueError) as error:
        from llm_engine.server.failure import EXIT_CODE, failure_of, leave_word, say

        failure = failure_of(error.cause if isinstance(error, LoadFailed) else error)
        leave_word(failure, os.environ)
        say(failure)
        return EXIT_CODE
    return 0


def _inspect(options: argparse.Namespace) -> int:
    """Report the shape of a model, or why it cannot be served."""
    from llm_engine.contract.inspection import Inspection, termination_message
    from llm_engine.server.failure import EXIT_CODE, failure_of, say
    from llm_engine.weights.inspection import described, inspect

    try:
        report = inspect(options.model)
        if options.plan and report.shape is not None:
            report = _with_plan(report, options)
    except Exception as error:  # what nobody foresaw must reach the operator too
        report = Inspection(failure=failure_of(error))
    line = termination_message(report)
    if options.output is not None:
        options.output.write_text(line)
    if options.json:
        print(line)
    else:
        print("\n".join(described(report)))
        if report.plan is not None:
            from llm_engine.engine import planning

            print("\n".join(planning.described(report.plan)))
    if report.failure is not None:
        say(report.failure)
        return EXIT_CODE
    return 0


def _with_plan(report: "Inspection", options: argparse.Namespace) -> "Inspection":
    """Add where the bytes go; a plan that does not fit is a failure."""
    from llm_engine.contract.inspection import Failure, FailureReason
    from llm_engine.engine.planning import plan_here

    assert report.shape is not None
    plan = plan_here(
        report.shape,
        Quantization(options.quantization),
        options.device,
        options.max_context_tokens,
        options.kv_cache_bytes,
        AttentionName(options.attention),
    )
    failure = plan.problem and Failure(reason=FailureReason.OUT_OF_MEMORY, message=plan.problem)
    return report.model_copy(update={"plan": plan, "failure": failure or None})


def _generate(options: argparse.Namespace) -> int:
    """Print the continuation of a prompt as it comes, and its speed on stderr."""
    from llm_engine.engine import Engine
    from llm_engine.engine.generation import generate
    from llm_engine.sampling.parameters import SamplingParameters
    from llm_engine.server.failure import EXIT_CODE, failure_of, say
    from llm_engine.weights.source import resolve_source

    def say_phase(phase: str) -> None:
        print(f"llm-engine: {phase} ...", file=sys.stderr)

    def say_progress(progress: "Progress") -> None:
        end = "\n" if progress.percent == 100 or not sys.stderr.isatty() else "\r"
        print(f"llm-engine: fetched {progress}", end=end, file=sys.stderr, flush=True)

    def write(text: str) -> None:
        print(text, end="", flush=True)

    sampling = SamplingParameters(
        max_tokens=options.max_tokens, temperature=options.temperature, seed=options.seed
    )
    try:
        engine = Engine.load(
            str(resolve_source(options.model, say_progress)),
            quantization=Quantization(options.quantization),
            device=options.device,
            attention=AttentionName(options.attention),
            max_context_tokens=options.max_context_tokens,
            kv_cache_bytes=options.kv_cache_bytes,
            tensor_parallel=options.tensor_parallel,
            on_phase=say_phase,
        )
        engine.start()
        times = generate(engine, options.prompt, sampling, write, options.chat)
        engine.stop()
    except Exception as error:
        say(failure_of(error))
        return EXIT_CODE
    print()
    per_s = (times.output_tokens - 1) / times.decode_s if times.decode_s else 0.0
    first_ms = (times.queue_s + times.prefill_s) * 1000
    print(
        f"llm-engine: {times.prompt_tokens} prompt tokens, first token after {first_ms:.0f} ms;"
        f" {times.output_tokens} tokens at {per_s:.1f}/s",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    main()
