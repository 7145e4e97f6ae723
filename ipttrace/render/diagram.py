"""The flow picture: netfilter's hooks and tables, with the way of one packet lit.

Heavy lines are where the packet went, light and broken ones where it did not, a double box or
brackets are the hop that is looked at, and a cross is where the packet died.
"""

from __future__ import annotations

from ipttrace.path import PacketPath
from ipttrace.render import flow_boxes, flow_lanes
from ipttrace.render.journey import Journey, journey
from ipttrace.render.picture import Look, Picture, Segment
from ipttrace.render.ruled import with_rules, without_empty, without_families
from ipttrace.ruleset import Ruleset

__all__ = ["Look", "Picture", "Segment", "flow_picture"]


def flow_picture(
    path: PacketPath | None,
    width: int,
    selected_hop: int | None = None,
    height: int | None = None,
    rules: Ruleset | None = None,
) -> Picture:
    """Return the picture of `path` in `width` columns: boxes where they fit, else a line a hook.

    Without a path it is the map alone, nothing lit.
    `selected_hop` is an index into the path's hops.  Boxes are also left where they need more
    than `height` lines; then the lines close up, and hooks are left out in which the packet was
    not, but what remains may need more still.  With `rules` the tables stand back
    that hold none, and come forward that hold some; boxes do without the former if they must, and
    without the families of nft's own tables.
    """
    way = journey(path)
    if rules is not None:
        way = with_rules(way, path, rules)
    boxes = _boxes(way, width, selected_hop, may_leave_out=rules is not None)
    if boxes is not None and (height is None or boxes.height <= height):
        return boxes
    lanes = flow_lanes.draw(way, width, selected_hop)
    if height is None or lanes.height <= height:
        return lanes
    for tight, whole in ((True, True), (False, False), (True, False)):
        lanes = flow_lanes.draw(way, width, selected_hop, tight=tight, whole=whole)
        if lanes.height <= height:
            break
    return lanes


def _boxes(
    way: Journey, width: int, selected_hop: int | None, *, may_leave_out: bool
) -> Picture | None:
    """Return the boxes that say the most in `width` columns, None if none of them fit."""
    ways = [way, without_families(way)]
    if may_leave_out:
        less = without_empty(way)
        ways[1:] = [less, without_families(less)]
    drawn = (flow_boxes.draw(each, width, selected_hop) for each in ways)
    return next((each for each in drawn if each is not None), None)
