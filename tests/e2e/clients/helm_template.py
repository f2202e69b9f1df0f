"""Helm's own engine: `helm_template.py CHART NAMESPACE VALUES` prints what `helm template` would.

VALUES is a file of YAML. The chart is linted first, as strictly as Helm can.
"""

import sys

from helm_python import Chart, lint, values_from_yaml

chart, namespace, values = sys.argv[1:]
values = values_from_yaml(open(values, encoding="utf-8").read())

report = lint(chart, values=values, namespace=namespace, strict=True)
# 1 is information: that an icon is recommended.
assert not report["errors"] and all(message["severity"] <= 1 for message in report["messages"]), report

with Chart.load(chart) as loaded:
    loaded.validate_schema(values)
    rendered = loaded.render(values=values, name="selvedge", namespace=namespace)
for path in sorted(rendered):
    if path.endswith(".yaml") and rendered[path].strip():
        print("---")
        print(rendered[path])
