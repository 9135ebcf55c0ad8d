#!/usr/bin/env python3
"""check.py: the Flatpak manifest is JSON, is about this program, and what it starts and exports is what the build installs.

    check.py MANIFEST BUILD_FOLDER MESON...
"""
import json
import pathlib
import subprocess
import sys

manifest_path, build = pathlib.Path(sys.argv[1]), sys.argv[2]
meson = sys.argv[3:]
manifest = json.loads(manifest_path.read_text())
app_id = manifest["id"]
problems = []


def expect(condition, sentence):
    if not condition:
        problems.append(sentence)


installed = json.loads(subprocess.run([*meson, "introspect", "--installed", build], check=True, capture_output=True).stdout)
# A folder that is installed whole stands for the files in it.
places = set()
for source, target in installed.items():
    places.add(target)
    if pathlib.Path(source).is_dir():
        places |= {f"{target}/{path.relative_to(source)}" for path in pathlib.Path(source).rglob("*")}
expect(manifest_path.stem == app_id, f"the manifest is not named after {app_id}")
for wanted in (
    f"bin/{manifest['command']}",
    "bin/valise",
    f"share/applications/{app_id}.desktop",
    f"share/metainfo/{app_id}.metainfo.xml",
    f"share/glib-2.0/schemas/{app_id}.gschema.xml",
    f"hicolor/scalable/apps/{app_id}.svg",
    f"hicolor/symbolic/apps/{app_id}-symbolic.svg",
):
    expect(any(place.endswith("/" + wanted) for place in places), f"the build does not install {wanted}")
expect(manifest["runtime"] == "org.gnome.Platform" and manifest["sdk"] == "org.gnome.Sdk", "the runtime is not GNOME's")
# Chatting needs no network and no other permission than to be seen.
allowed = {"--share=ipc", "--socket=wayland", "--socket=fallback-x11"}
expect(set(manifest["finish-args"]) == allowed, f"the permissions are not {sorted(allowed)}")
module = manifest["modules"][-1]
source = manifest_path.parent / module["sources"][0]["path"]
expect(module["buildsystem"] == "meson" and (source / "meson.build").is_file(), f"{source} is not the program's own source")
options = (source / "meson_options.txt").read_text()
for option in module["config-opts"]:
    name = option.removeprefix("-D").split("=")[0]
    expect(name == "werror" or f"option('{name}'" in options, f"there is no option {name}")
print("\n".join(problems) or "the manifest agrees with the build")
sys.exit(bool(problems))
