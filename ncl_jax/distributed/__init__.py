"""Jobs of several processes: joining a job, joint decisions, meshes and shardings."""
