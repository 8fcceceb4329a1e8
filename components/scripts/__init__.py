"""Programs that run inside the pods, in the images' own Python; none imports the platform."""
