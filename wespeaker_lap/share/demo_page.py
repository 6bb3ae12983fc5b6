"""The demo's page: which fields and buttons there are, and what each one calls. Needs Gradio."""

from pathlib import Path
from types import ModuleType

from wespeaker_lap.share.demo_desk import Desk
from wespeaker_lap.share.demo_views import show_head

FORGET_SECONDS = (600, 3600)  # how often uploads are looked through, and how old they may become
BOTH = ("upload", "microphone")  # a browser asks for leave when the microphone is chosen
ONE_AT_A_TIME = {"concurrency_id": "model", "concurrency_limit": 1}  # the gallery is not locked


def build_page(gradio: ModuleType, desk: Desk, name: str, is_local: bool, folder: Path):
    """Build the page.

    Args:
        gradio: the module, imported after its environment was set.
        desk: that does the work.
        name: of the model, for the head.
        is_local: whether only this computer can open the page.
        folder: for files to download.

    Returns:
        `gradio.Blocks`.
    """
    with gradio.Blocks(analytics_enabled=False, title=f"{name}: speaker verification",
                       delete_cache=FORGET_SECONDS) as page:
        gradio.HTML(show_head(name, desk.threshold, desk.source, is_local))
        with gradio.Tab("Verify", id="verify"):
            _add_verify(gradio, desk)
        with gradio.Tab("Enrol", id="enrol"):
            _add_enrol(gradio, desk, page, folder)
        with gradio.Tab("Identify", id="identify"):
            _add_identify(gradio, desk)
    return page


def _add_recording(gradio: ModuleType, desk: Desk, label: str, sources: tuple[str, ...],
                   elem_id: str):
    """A field for one recording; the browser writes what it records at the model's rate."""
    rate = desk.model.frontend.sample_rate
    return gradio.Audio(type="filepath", sources=list(sources), label=label, elem_id=elem_id,
                        buttons=[], waveform_options=gradio.WaveformOptions(sample_rate=rate))


def _add_verify(gradio: ModuleType, desk: Desk) -> None:
    with gradio.Row():
        pair = [_add_recording(gradio, desk, label, BOTH, elem_id)
                for label, elem_id in (("First recording", "first"),
                                       ("Second recording", "second"))]
    button = gradio.Button("Compare", variant="primary", elem_id="compare")
    result = gradio.HTML(elem_id="verified")
    button.click(desk.verify, pair, result, api_name="verify", **ONE_AT_A_TIME)


def _add_identify(gradio: ModuleType, desk: Desk) -> None:
    recording = _add_recording(gradio, desk, "Recording", BOTH, "unknown")
    button = gradio.Button("Identify", variant="primary", elem_id="find")
    result = gradio.HTML(elem_id="identified")
    button.click(desk.identify, recording, result, api_name="identify", **ONE_AT_A_TIME)


def _add_enrol(gradio: ModuleType, desk: Desk, page, folder: Path) -> None:
    with gradio.Row():
        with gradio.Column():
            name = gradio.Textbox(label="Name", max_lines=1, max_length=80, elem_id="name")
            files = gradio.File(label="Recordings", file_count="multiple", file_types=["audio"],
                                height=150, elem_id="files")
            spoken = _add_recording(gradio, desk, "Or record one", ("microphone",), "spoken")
            add = gradio.Button("Enrol", variant="primary", elem_id="add")
        with gradio.Column():
            message = gradio.HTML(elem_id="enrolled")
            people = gradio.CheckboxGroup(label="Enrolled speakers", elem_id="people")
            with gradio.Row():
                remove = gradio.Button("Remove chosen", size="sm", elem_id="remove")
                save = gradio.DownloadButton("Save gallery", size="sm", elem_id="save")
                load = gradio.UploadButton("Load gallery", size="sm", elem_id="load",
                                           file_types=[".safetensors"])

    state, listed = [name, files, spoken], [people, save]

    def list_people() -> list:
        """The choices, and the file to download."""
        exported = desk.export(folder / "gallery.safetensors")
        return [gradio.CheckboxGroup(choices=desk.names, value=[]),
                gradio.DownloadButton(value=exported, interactive=exported is not None)]

    def enroll(name: str, files: list[str] | None, spoken: str | None) -> list:
        """Enrol; the fields are emptied where that went well."""
        before = desk.names
        told = desk.enroll(name, [*(files or ()), *([spoken] if spoken else ())])
        fields = ["", None, None] if desk.names != before else [gradio.skip()] * 3
        return [told, *fields, *list_people()]

    page.load(list_people, None, listed, api_name="list", **ONE_AT_A_TIME)
    add.click(enroll, state, [message, *state, *listed], api_name="enroll", **ONE_AT_A_TIME)
    remove.click(lambda chosen: [desk.remove(chosen), *list_people()], people,
                 [message, *listed], api_name="remove", **ONE_AT_A_TIME)
    load.upload(lambda path: [desk.load(path), *list_people()], load, [message, *listed],
                api_name="load", **ONE_AT_A_TIME)
