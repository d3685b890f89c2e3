"""The program that runs on compute nodes: Python 3.8+, standard library only.

It is shipped as a zipapp (``hpc_agent/jobs/node_program.py``), so its modules import each other
relatively and nothing else of the project.
"""
