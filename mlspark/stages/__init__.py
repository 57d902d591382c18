"""What the jobs do, stage by stage: each is the orchestration of the rooms below."""
