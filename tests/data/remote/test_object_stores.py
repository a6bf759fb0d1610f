"""Shards in S3, as moto imitates it on this machine: s3fs, its credentials and its errors are the real ones."""

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

from data.remote import addresses
from settings import ConfigError, MissingFile
from tests.data.remote.conftest import COUNT, seen


def forget():
    """Forget file systems, whose endpoint and credentials are those of the environment in which they were made."""
    addresses._file_system.cache_clear()
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(folder, monkeypatch):
    """The address of a bucket that holds the shards of `folder`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{server._server.server_port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t")
    forget()
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket="pictures")
    for file in folder.iterdir():
        client.upload_file(str(file), "pictures", f"web/{file.name}")
    yield "s3://pictures/web"
    server.stop()
    forget()


def test_shards_in_s3_are_the_local_ones_and_what_is_wrong_is_named(loader, folder, bucket):
    expected = [seen(loader(str(folder / "*.tar")), epoch) for epoch in range(2)]
    by_names = loader(f"{bucket}/{{00000..{COUNT - 1:05d}}}.tar", num_workers=1)
    assert [seen(by_names, epoch) for epoch in range(2)] == expected
    assert seen(loader(f"{bucket}/*.tar")) == expected[0]
    with pytest.raises(MissingFile, match=r"no shard s3://pictures/web/00009.tar: its folder has no such file"):
        loader(f"{bucket}/00009.tar")
    with pytest.raises(MissingFile, match=r"no shard s3://nowhere/web/0.tar: there is no such file"):
        loader("s3://nowhere/web/0.tar")
    with pytest.raises(MissingFile, match=r"no shard matches s3://pictures/web/x\*.tar"):
        loader(f"{bucket}/x*.tar")


def test_without_credentials_the_error_says_so(loader, bucket, monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ConfigError, match="s3://pictures/web/00000.tar cannot be read: .*credentials"):
        loader(f"{bucket}/00000.tar")
