"""The integrator's API: `PosePublisher` sends a camera's poses, `AlertSubscriber` receives what the engine says.

with PosePublisher("pub+connect:tcp://127.0.0.1:5555", stream="cam1", layout="coco17") as camera:
    camera.wait(5)
    camera.send(ids, keypoints, visible=confidence, size=(1920, 1080))

for event in AlertSubscriber("sub+connect:tcp://127.0.0.1:5556"):
    print(event)
"""

from edge.client.publisher import POSES, PosePublisher
from edge.client.subscriber import ALERTS, AlertSubscriber

__all__ = ["ALERTS", "POSES", "AlertSubscriber", "PosePublisher"]
