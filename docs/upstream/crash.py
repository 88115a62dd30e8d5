"""Crashes Blender 4.2 to 5.0 (Python 3.11) within seconds; Blender 5.1 and newer (3.13) bear it.

    blender --background --factory-startup --python crash.py

No thread here touches bpy. Also `python crash.py`, with Blender as a module.
"""

import sys
import threading
import time

import bpy

SECONDS = float(sys.argv[1]) if sys.argv[1:2] and sys.argv[1][0].isdigit() else 20.0


def work():
    while True:
        time.sleep(0.0001)  # gives the GIL away and takes it back, as all input and output does


for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    with bpy.context.temp_override(object=bpy.context.object):
        bpy.ops.object.select_all(action="TOGGLE")
print("lived")
