"""Starts programs in processes of their own, alone or as a world of two."""

import multiprocessing
import socket
from pathlib import Path

import programs


class Launcher:
    """Starts processes and waits for them."""

    def __init__(self, folder: Path):
        self.context = multiprocessing.get_context("forkserver")
        # torch._dynamo is what the first optimizer of a process imports.
        self.context.set_forkserver_preload(["wespeaker_lap.cli", "wespeaker_lap.engine.train",
                                             "wespeaker_lap.engine.extract", "torch._dynamo"])
        self.folder = folder
        self.count = 0

    def start(self, target, first, *second, environment=None, accident=None):
        """Begin a process; its `log_path` has what it says."""
        self.count += 1
        log_path = self.folder / f"{self.count}.log"
        arguments = (first, *second, log_path, environment or {}, accident)
        process = self.context.Process(target=target, args=arguments)
        process.start()
        process.log_path = log_path
        return process

    def finish(self, *processes) -> list[tuple[int, str]]:
        """The exit code and the output of each."""
        for process in processes:
            process.join(programs.PATIENCE)
        alive = [process for process in processes if process.is_alive()]
        for process in alive:
            process.kill()
            process.join()
        assert not alive, "\n".join(process.log_path.read_text() for process in processes)
        return [(process.exitcode, process.log_path.read_text()) for process in processes]

    def verb(self, argv, accident=None, **environment) -> tuple[int, str]:
        """Run a verb alone."""
        return self.finish(self.start(programs.run_verb, argv, accident=accident,
                                      environment=environment))[0]

    def verb_by_two(self, argv, accident=None) -> list[tuple[int, str]]:
        """Run a verb on two processes that are one world."""
        return self.finish(*(self.start(programs.run_verb, argv, environment=place,
                                        accident=accident) for place in make_places()))

    def verbs_of_two(self, argvs) -> list[tuple[int, str]]:
        """Two processes of one world whose arguments differ."""
        return self.finish(*(self.start(programs.run_verb, argv, environment=place)
                             for argv, place in zip(argvs, make_places(), strict=True)))

    def function(self, name: str, *arguments, accident=None) -> tuple[int, str]:
        """Run a function of `programs` alone."""
        return self.finish(self.start(programs.run_function, name, arguments,
                                      accident=accident))[0]

    def function_by_two(self, name: str, *arguments) -> list[tuple[int, str]]:
        """Run a function of `programs` on two processes that are one world."""
        return self.finish(*(self.start(programs.run_function, name, arguments, environment=place)
                             for place in make_places()))


def make_places() -> list[dict[str, str]]:
    """What torchrun tells two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2",
             "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} for rank in range(2)]
