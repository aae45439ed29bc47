"""The dashboards, as data for Grafana. `monitoring/grafana/make.py` writes them as files."""
