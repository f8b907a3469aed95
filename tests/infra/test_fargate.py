"""The stacks of services on Fargate, and the network that they run in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from aws_cdk import App, Stack
from aws_cdk.assertions import Template

from headrace.cdk.backlog import backlog_per_task, backlog_target
from headrace.cdk.deployment import Deployment, FargateOptions, Placed
from headrace.cdk.image import COLLECTOR
from headrace.cdk.network import NetworkStack
from headrace.cdk.on_fargate import ServiceOnFargate, mixed
from headrace.cdk.tasks import collecting
from headrace.errors import ConfigurationError
from headrace.hosts.settings import ObserveSettings, WorkerSettings
from tests.infra.containers import compose, dockerfile, exec_form, health_command
from tests.infra.policies import Place, role_policies
from tests.infra.resolved import resolved

Found: TypeAlias = dict[str, Any]

CERTIFICATE = "arn:aws:acm:eu-west-1:123456789012:certificate/0f5c4f4e"

CHANGED = {
    "order": {"least": 2, "spot": 0.25, "stop_timeout": 90, "concurrency": 20},
    "inventory": {"least": 0, "most": 5, "latency": 30.0, "seconds_per_message": 0.5},
    "notification": {},
}


def changed(placed: Placed) -> Placed:
    options = placed.options.on_fargate.model_copy(update=CHANGED[placed.name])
    return Placed(placed.service, placed.options.model_copy(update={"on_fargate": options}))


class Stacks:
    """All of them, by the service, and the folder that they are synthesised to."""

    def __init__(self, deployment: Deployment, folder: Path) -> None:
        self.folder = folder
        app = App(outdir=str(folder))
        traced = replace(deployment, tracing="xray")
        network = NetworkStack(app, "network", traced)
        made = {"network": network, **dict(self._services(app, traced, network))}
        app.synth()
        self.templates: dict[str, Found] = {
            name: json.loads((folder / stack.template_file).read_text())
            for name, stack in made.items()
        }
        self.resources: dict[str, Found] = {
            name: resolved(template["Resources"], Template.from_json(template))
            for name, template in self.templates.items()
        }

    def _services(
        self, app: App, deployment: Deployment, network: NetworkStack
    ) -> Iterator[tuple[str, Stack]]:
        for placed in map(changed, deployment.services):
            stack = Stack(app, placed.name)
            ServiceOnFargate(stack, "Service", placed, deployment=deployment, network=network)
            yield placed.name, stack
        order = next(p for p in deployment.services if p.name == "order")
        stack = Stack(app, "secure")
        untraced = replace(deployment, tracing="off")
        ServiceOnFargate(
            stack,
            "Service",
            order,
            deployment=untraced,
            network=network,
            certificate=CERTIFICATE,
        )
        yield "secure", stack

    @property
    def services(self) -> set[str]:
        return self.templates.keys() - {"network"}

    def of(self, name: str, kind: str) -> list[Found]:
        """The properties of the resources of a kind in one stack."""
        found = self.resources[name].values()
        return [each.get("Properties", {}) for each in found if each["Type"] == kind]

    def one(self, name: str, kind: str) -> Found:
        (found,) = self.of(name, kind)
        return found

    def all(self, kind: str) -> list[Found]:
        return [each for name in self.services for each in self.of(name, kind)]

    def container(self, name: str, called: str = "service", entry: str = "headrace") -> Found:
        for task in self.of(name, "AWS::ECS::TaskDefinition"):
            containers = {each["Name"]: each for each in task["ContainerDefinitions"]}
            if containers["service"]["EntryPoint"] == [entry]:
                found: Found = containers[called]
                return found
        raise LookupError(f"{name} runs no {entry}")

    def service(self, name: str, called: str) -> Found:
        services = self.of(name, "AWS::ECS::Service")
        return next(each for each in services if each["ServiceName"] == called)


@pytest.fixture(scope="module")
def stacks(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Stacks:
    return Stacks(deployment, tmp_path_factory.mktemp("cdk.out"))


def settings(container: Found) -> dict[str, str]:
    return {each["Name"]: each["Value"] for each in container["Environment"]}


def granted(stacks: Stacks, name: str) -> set[tuple[str, str]]:
    """What the roles of a service may do, on what."""
    resources = stacks.templates[name]["Resources"]
    roles = role_policies(Place("prod", region="eu-west-1"), resources)
    return {grant for policy in roles.values() for grant in policy.grants}


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


# --- tasks -------------------------------------------------------------------------------


def test_a_task_runs_the_worker_of_its_service_on_arm(stacks: Stacks) -> None:
    worker = stacks.container("inventory")
    assert worker["EntryPoint"] + worker["Command"] == [
        "headrace",
        "worker",
        "services.inventory.app:inventory",
    ]
    task = stacks.one("inventory", "AWS::ECS::TaskDefinition")
    assert task["RuntimePlatform"]["CpuArchitecture"] == "ARM64"


def test_a_task_runs_and_is_asked_as_its_container_is_in_compose(stacks: Stacks) -> None:
    image = dockerfile()["service"]
    for name in ("order", "inventory", "notification"):
        worker = stacks.container(name)
        assert worker["EntryPoint"] == exec_form(image.last("ENTRYPOINT"))
        assert worker["Command"] == compose()["services"][name]["command"]
        assert worker["HealthCheck"]["Command"] == ["CMD", *health_command(image)]
    edge, composed = stacks.container("order", entry="uvicorn"), compose()["services"]["order-http"]
    assert edge["EntryPoint"] == composed["entrypoint"]
    assert edge["Command"][: len(composed["command"])] == composed["command"]
    assert ["CMD", *composed["healthcheck"]["test"][1:3]] == edge["HealthCheck"]["Command"][:3]


def test_a_worker_is_told_what_it_needs_and_can_read_it(stacks: Stacks) -> None:
    told = settings(stacks.container("order"))
    assert told["HEADRACE_NAMESPACE"] == "prod"
    assert told["HEADRACE_SCHEDULER_ROLE_ARN"].endswith(":role/prod-order-scheduler")
    worker = WorkerSettings.from_environment(told)
    assert (worker.concurrency, worker.health) == (20, ("127.0.0.1", 8080))
    assert ObserveSettings.from_environment(told) == ObserveSettings(
        tracing="xray", metrics="emf", metrics_namespace="headrace/prod", logs="json"
    )


def test_a_worker_drains_five_seconds_before_it_is_killed(stacks: Stacks) -> None:
    worker = stacks.container("order")
    drain = WorkerSettings.from_environment(settings(worker)).drain
    assert (worker["StopTimeout"], drain.total_seconds()) == (90, 85)


def test_secrets_are_told_by_their_names_and_each_service_reads_its_own(stacks: Stacks) -> None:
    told = settings(stacks.container("notification"))
    assert told["MAIL_URL_SECRET"] == "prod/notification/MAIL_URL"
    assert "MAIL_URL" not in told
    readers = {
        (name, arn)
        for name in stacks.services
        for action, arn in granted(stacks, name)
        if action.startswith("secretsmanager:")
    }
    own = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/notification/MAIL_URL-??????"
    assert readers == {("notification", own)}


def test_a_container_may_write_to_its_tmp_and_nowhere_else(stacks: Stacks) -> None:
    tasks = stacks.all("AWS::ECS::TaskDefinition")
    containers = [each for task in tasks for each in task["ContainerDefinitions"]]
    assert len(containers) == 10
    for each in containers:
        assert each["ReadonlyRootFilesystem"] is True
        assert each["User"] == "10001:10001"
        assert each["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}
        assert each["LinuxParameters"]["InitProcessEnabled"] is True
        assert [m["ContainerPath"] for m in each.get("MountPoints", ())] in ([], ["/tmp"])


def test_lines_are_kept_for_a_month_and_no_handler_waits_for_them(stacks: Stacks) -> None:
    assert {group["RetentionInDays"] for group in stacks.all("AWS::Logs::LogGroup")} == {30}
    for task in stacks.all("AWS::ECS::TaskDefinition"):
        for each in task["ContainerDefinitions"]:
            assert each["LogConfiguration"]["Options"]["mode"] == "non-blocking"


# --- traces ------------------------------------------------------------------------------


def test_a_collector_is_beside_what_is_traced_and_nobody_depends_on_its_life(
    stacks: Stacks,
) -> None:
    collector = stacks.container("inventory", "collector")
    assert collector["Essential"] is False
    told = json.loads(settings(collector)["AOT_CONFIG_CONTENT"])
    assert told["receivers"] == {"awsxray": {"endpoint": "127.0.0.1:2000", "transport": "udp"}}
    # So it is stopped after the worker, whose last traces it sends.
    assert stacks.container("inventory")["DependsOn"] == [
        {"Condition": "START", "ContainerName": "collector"}
    ]


def test_without_traces_there_is_no_collector_and_nothing_is_allowed_for_it(
    stacks: Stacks,
) -> None:
    with pytest.raises(KeyError, match="collector"):
        stacks.container("secure", "collector")
    assert not [action for action, _ in granted(stacks, "secure") if action.startswith("xray:")]


@pytest.mark.parametrize(("tracing", "receiver"), [("xray", "awsxray"), ("otel", "otlp")])
def test_the_collector_takes_what_the_service_sends(tracing: str, receiver: str) -> None:
    told: Any = collecting(tracing)
    assert list(told["receivers"]) == [receiver]
    assert told["service"]["pipelines"]["traces"]["receivers"] == [receiver]
    assert "0.0.0.0" not in json.dumps(told)


# --- images ------------------------------------------------------------------------------


def images(stacks: Stacks, name: str) -> list[Found]:
    assets = json.loads((stacks.folder / f"{name}.assets.json").read_text())
    return [each["source"] for each in assets["dockerImages"].values()]


def test_an_image_is_built_from_the_service_alone(stacks: Stacks) -> None:
    (source,) = [each for each in images(stacks, "inventory") if "dockerBuildTarget" in each]
    assert source["dockerBuildTarget"] == "service"
    assert source["dockerBuildArgs"] == {
        "SERVICE": "services/inventory",
        "PYTHON": "3.13",
    }
    assert source["platform"] == "linux/arm64"
    folder = stacks.folder / source["directory"]
    assert {path.name for path in (folder / "services").iterdir()} == {"__init__.py", "inventory"}
    assert {path.name for path in folder.iterdir()} >= {"Dockerfile", "framework", "schemas"}
    assert not {"tests", "docs", ".git"} & {path.name for path in folder.iterdir()}
    assert list(folder.rglob("*.pyc")) == []


def test_the_worker_and_the_http_edge_are_one_image(stacks: Stacks) -> None:
    assert len(images(stacks, "order")) == len(images(stacks, "inventory")) == 2
    assert stacks.container("order")["Image"] == stacks.container("order", entry="uvicorn")["Image"]


def test_the_collector_comes_by_way_of_the_account(stacks: Stacks) -> None:
    (source,) = [each for each in images(stacks, "inventory") if "dockerBuildTarget" not in each]
    assert (stacks.folder / source["directory"] / "Dockerfile").read_text() == f"FROM {COLLECTOR}\n"
    assert ".dkr.ecr." in stacks.container("inventory", "collector")["Image"]["Fn::Sub"]


def test_a_missing_dockerfile_is_told(deployment: Deployment, tmp_path: Path) -> None:
    elsewhere = replace(deployment, sources=tmp_path)
    app = App(outdir=str(tmp_path / "out"))
    network = NetworkStack(app, "network", elsewhere)
    with pytest.raises(ConfigurationError, match="There is no Dockerfile in"):
        ServiceOnFargate(
            Stack(app, "service"),
            "Service",
            deployment.services[0],
            deployment=elsewhere,
            network=network,
        )


# --- how they are run --------------------------------------------------------------------


def test_a_deployment_that_fails_is_rolled_back_and_takes_no_task_away(stacks: Stacks) -> None:
    services = stacks.all("AWS::ECS::Service")
    assert len(services) == 6
    for service in services:
        deployed = service["DeploymentConfiguration"]
        assert deployed["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
        assert (deployed["MinimumHealthyPercent"], deployed["MaximumPercent"]) == (100, 200)


def test_a_deployment_leaves_the_number_of_tasks_as_it_is(stacks: Stacks) -> None:
    assert [s for s in stacks.all("AWS::ECS::Service") if "DesiredCount" in s] == []


def test_no_task_has_a_public_address_or_can_be_called_but_by_its_balancer(
    stacks: Stacks,
) -> None:
    for service in stacks.all("AWS::ECS::Service"):
        assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == (
            "DISABLED"
        )
    assert stacks.of("inventory", "AWS::EC2::SecurityGroupIngress") == []
    assert "SecurityGroupIngress" not in stacks.one("inventory", "AWS::EC2::SecurityGroup")
    within = stacks.one("order", "AWS::EC2::SecurityGroupIngress")
    assert "SourceSecurityGroupId" in within
    assert (within["FromPort"], within["ToPort"]) == (8000, 8000)


@pytest.mark.parametrize(
    ("spot", "least", "strategy"),
    [
        (0, 1, [("FARGATE", 1, 1)]),
        (0.5, 1, [("FARGATE", 1, 1), ("FARGATE_SPOT", 1, None)]),
        (0.25, 2, [("FARGATE", 3, 2), ("FARGATE_SPOT", 1, None)]),
        (1, 2, [("FARGATE", 0, 2), ("FARGATE_SPOT", 1, None)]),
        (1, 0, [("FARGATE_SPOT", 1, None)]),
    ],
)
def test_the_least_is_on_demand_and_of_the_rest_a_share_on_spot(
    spot: float, least: int, strategy: list[tuple[str, int, int | None]]
) -> None:
    found = [(each.capacity_provider, each.weight, each.base) for each in mixed(spot, least)]
    assert found == strategy


def test_the_mix_is_that_of_the_service(stacks: Stacks) -> None:
    assert stacks.service("order", "prod-order")["CapacityProviderStrategy"] == [
        {"Base": 2, "CapacityProvider": "FARGATE", "Weight": 3},
        {"CapacityProvider": "FARGATE_SPOT", "Weight": 1},
    ]


# --- scaling -----------------------------------------------------------------------------


def calculated(expression: str, **measured: float | None) -> float:
    """An expression of metric math; `None` is no figure."""
    known = {
        "FILL": lambda figure, otherwise: otherwise if figure is None else figure,
        "IF": lambda condition, then, otherwise: then if condition else otherwise,
        "MAX": max,
    }
    return float(eval(expression, {"__builtins__": {}}, {**known, **measured}))


def test_the_backlog_is_what_waits_for_each_task() -> None:
    assert calculated(backlog_per_task(1), queue0=600, running=3) == 200


def test_the_fullest_queue_decides_as_each_has_places_of_its_own() -> None:
    assert calculated(backlog_per_task(3), queue0=10, queue1=600, queue2=None, running=3) == 200


def test_a_queue_that_is_not_measured_holds_nothing() -> None:
    assert calculated(backlog_per_task(1), queue0=None, running=3) == 0


@pytest.mark.parametrize("running", [0, None])
def test_where_no_task_runs_the_backlog_is_that_of_one(running: float | None) -> None:
    assert calculated(backlog_per_task(1), queue0=600, running=running) == 600


def test_the_target_is_what_a_task_handles_within_the_latency_wanted() -> None:
    # Ten at a time for half a second each are 20 a second, and 600 in 30 s.
    options = FargateOptions(latency=30, concurrency=10, seconds_per_message=0.5)
    assert backlog_target(options) == 600


def test_a_worker_is_scaled_by_the_backlog_of_its_queue_and_its_own_tasks(
    stacks: Stacks,
) -> None:
    target = stacks.one("inventory", "AWS::ApplicationAutoScaling::ScalableTarget")
    assert (target["MinCapacity"], target["MaxCapacity"]) == (0, 5)
    tracked, first = sorted(
        stacks.of("inventory", "AWS::ApplicationAutoScaling::ScalingPolicy"),
        key=lambda policy: str(policy["PolicyType"]),
        reverse=True,
    )
    tracking = tracked["TargetTrackingScalingPolicyConfiguration"]
    assert tracking["TargetValue"] == 600
    metrics = {each["Id"]: each for each in tracking["CustomizedMetricSpecification"]["Metrics"]}
    assert [id for id, each in metrics.items() if each["ReturnData"]] == ["backlog"]
    named = {
        id: (m["Namespace"], m["MetricName"], {d["Name"]: d["Value"] for d in m["Dimensions"]})
        for id, each in metrics.items()
        if (m := each.get("MetricStat", {}).get("Metric"))
    }
    assert named == {
        "queue0": (
            "AWS/SQS",
            "ApproximateNumberOfMessagesVisible",
            {"QueueName": "prod-inventory"},
        ),
        "running": (
            "ECS/ContainerInsights",
            "RunningTaskCount",
            {"ClusterName": "prod", "ServiceName": "prod-inventory"},
        ),
    }
    assert first["PolicyType"] == "StepScaling"


def test_the_first_task_comes_when_something_waits_and_nobody_runs(stacks: Stacks) -> None:
    alarm = stacks.one("inventory", "AWS::CloudWatch::Alarm")
    (wanted,) = [each["Expression"] for each in alarm["Metrics"] if "Expression" in each]
    assert calculated(wanted, queue0=1, running=0) >= alarm["Threshold"]
    assert calculated(wanted, queue0=1, running=None) >= alarm["Threshold"]
    assert calculated(wanted, queue0=1, running=1) < alarm["Threshold"]
    assert calculated(wanted, queue0=0, running=0) < alarm["Threshold"]
    assert stacks.of("order", "AWS::CloudWatch::Alarm") == []


# --- HTTP --------------------------------------------------------------------------------


def test_the_http_edge_is_behind_a_balancer_that_only_the_network_reaches(
    stacks: Stacks,
) -> None:
    assert stacks.one("order", "AWS::ElasticLoadBalancingV2::LoadBalancer")["Scheme"] == "internal"
    groups = stacks.of("order", "AWS::EC2::SecurityGroup")
    let_in = [rule for group in groups for rule in group.get("SecurityGroupIngress", ())]
    assert [(rule["CidrIp"], rule["ToPort"]) for rule in let_in] == [("10.0.0.0/16", 80)]
    assert stacks.of("inventory", "AWS::ElasticLoadBalancingV2::LoadBalancer") == []


def test_with_a_certificate_it_speaks_https(stacks: Stacks) -> None:
    listener = stacks.one("secure", "AWS::ElasticLoadBalancingV2::Listener")
    assert (listener["Port"], listener["Protocol"]) == (443, "HTTPS")
    assert listener["Certificates"] == [{"CertificateArn": CERTIFICATE}]
    assert listener["SslPolicy"].startswith("ELBSecurityPolicy-TLS13")


def test_the_http_edge_keeps_connections_for_longer_than_its_balancer(stacks: Stacks) -> None:
    command = stacks.container("order", entry="uvicorn")["Command"]
    assert command[0] == "services.order.http:app"
    assert int(command[command.index("--timeout-keep-alive") + 1]) > 60
    target = stacks.one("order", "AWS::ElasticLoadBalancingV2::TargetGroup")
    assert target["HealthCheckPath"] == "/healthz"


# --- permissions -------------------------------------------------------------------------

ON_EVERYTHING = {
    "ecr:GetAuthorizationToken",
    "xray:GetSamplingRules",
    "xray:GetSamplingTargets",
    "xray:PutTraceSegments",
}
"""What AWS allows on all or on nothing."""


def test_no_role_may_do_everything_or_anything_on_everything_but_what_aws_demands(
    stacks: Stacks,
) -> None:
    all_of_them = {grant for name in stacks.services for grant in granted(stacks, name)}
    assert [action for action, _ in all_of_them if "*" in action] == []
    assert {action for action, arn in all_of_them if arn == "*"} == ON_EVERYTHING


def test_a_worker_may_protect_the_tasks_of_its_cluster(stacks: Stacks) -> None:
    own = "arn:aws:ecs:eu-west-1:123456789012:task/prod/*"
    assert ("ecs:UpdateTaskProtection", own) in granted(stacks, "inventory")


# --- the network -------------------------------------------------------------------------


def endpoints(stacks: Stacks) -> dict[str, Found]:
    found = stacks.of("network", "AWS::EC2::VPCEndpoint")
    return {each["ServiceName"].rpartition("eu-west-1.")[2]: each for each in found}


def test_the_network_has_no_way_out(stacks: Stacks) -> None:
    for kind in ("InternetGateway", "NatGateway", "EIP", "EgressOnlyInternetGateway"):
        assert stacks.of("network", f"AWS::EC2::{kind}") == []
    subnets = stacks.of("network", "AWS::EC2::Subnet")
    assert [subnet["MapPublicIpOnLaunch"] for subnet in subnets] == [False, False]


def test_there_is_an_endpoint_for_each_service_of_aws_that_is_used(stacks: Stacks) -> None:
    assert set(endpoints(stacks)) == {
        "dynamodb",
        "ecr.api",
        "ecr.dkr",
        "events",
        "logs",
        "s3",
        "scheduler",
        "secretsmanager",
        "sqs",
        "xray",
    }


def test_what_nobody_uses_has_no_endpoint(deployment: Deployment, tmp_path: Path) -> None:
    alone = [placed for placed in deployment.services if placed.name == "notification"]
    plain = Placed(alone[0].service, alone[0].options.model_copy(update={"secrets": ()}))
    app = App(outdir=str(tmp_path))
    network = NetworkStack(app, "network", replace(deployment, services=(plain,), tracing="off"))
    template = Template.from_stack(network)
    found = resolved(template.find_resources("AWS::EC2::VPCEndpoint"), template)
    names = {e["Properties"]["ServiceName"].rpartition("eu-west-1.")[2] for e in found.values()}
    assert names == {"dynamodb", "ecr.api", "ecr.dkr", "events", "logs", "s3", "sqs"}


def test_an_endpoint_takes_the_credentials_of_its_own_account_only(stacks: Stacks) -> None:
    for name, endpoint in endpoints(stacks).items():
        for statement in endpoint["PolicyDocument"]["Statement"]:
            assert not [a for a in listed(statement["Action"]) if "*" in a]
            if name == "s3":
                # What ECR has signed is nobody's of the account.
                bucket = "arn:aws:s3:::prod-eu-west-1-starport-layer-bucket/*"
                assert (statement["Action"], statement["Resource"]) == ("s3:GetObject", bucket)
                continue
            account = {"aws:PrincipalAccount": "123456789012"}
            assert statement["Condition"] == {"StringEquals": account}


ENDPOINT_OF = {"ecr": "ecr.api"}
BY_ITSELF = {"ecs", "iam"}
"""What Fargate does for its tasks, and what is asked of nobody but IAM itself."""


def passes(action: str, resource: str, endpoint: Found) -> bool:
    return any(
        action in listed(statement["Action"])
        and any(
            resource == pattern or fnmatchcase(resource, pattern)
            for pattern in listed(statement["Resource"])
        )
        for statement in endpoint["PolicyDocument"]["Statement"]
    )


def test_whatever_a_role_may_do_passes_the_policy_of_its_endpoint(stacks: Stacks) -> None:
    let_through = endpoints(stacks)
    tried = [
        (action, arn, let_through[ENDPOINT_OF.get(service, service)])
        for name in stacks.services
        for action, arn in granted(stacks, name)
        if (service := action.partition(":")[0]) not in BY_ITSELF
    ]
    assert [(action, arn) for action, arn, door in tried if not passes(action, arn, door)] == []
    assert len(tried) > 50


def test_stacks_find_the_network_by_name_and_hold_nothing_of_it(stacks: Stacks) -> None:
    for name, template in stacks.templates.items():
        written = json.dumps(template)
        assert "Fn::ImportValue" not in written, name
        assert not [o for o in template.get("Outputs", {}).values() if "Export" in o]
    told = {each["Name"] for each in stacks.of("network", "AWS::SSM::Parameter")}
    parameters = stacks.templates["inventory"]["Parameters"]
    read = {each["Default"] for each in parameters.values()}
    assert told == {path for path in read if path.startswith("/prod/network/")}


def test_the_network_keeps_a_record_of_who_spoke_with_whom(stacks: Stacks) -> None:
    assert stacks.one("network", "AWS::EC2::FlowLog")["TrafficType"] == "ALL"
    (insights,) = stacks.one("network", "AWS::ECS::Cluster")["ClusterSettings"]
    assert insights == {"Name": "containerInsights", "Value": "enabled"}
