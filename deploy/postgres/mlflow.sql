-- Run once, on an empty volume: sessions and the loop are in `loraloop`, MLflow has a database of its own.
CREATE DATABASE mlflow;
