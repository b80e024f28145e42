"""Starts and stops the workers' containers.

base.py              the port: an engine, a container, and the spec of a worker as plain values
lockdown.py          the limits and rights of every container
docker.py            through a Docker Engine; connection.py: its clients and its errors
oci.py               with runc and without a Docker Engine; oci_container.py: one container
  bundle.py runc.py  its config.json; calls of the program
  roots.py untar.py  images as unpacked directories; archive.py: from `docker save`; transfer.py: from a Docker Engine
diagnosis.py         how a container ended, as text
"""
