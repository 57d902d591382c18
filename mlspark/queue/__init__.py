"""Jobs that run in the background: a queue in a folder, one worker for it, a supervisor for each stage that runs.

Needs neither Spark nor torch nor MLflow: the stages are processes of their own, with command lines of jobs/*.py.
"""
