"""Where tasks run: a network without a way to the internet, and a cluster.

    network = NetworkStack(app, "shop-network", deployment)

Tasks reach what their services use of AWS through endpoints of their own, and nothing else.
Services run in a network that is there already with a `Network` of its VPC and a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from aws_cdk import Annotations, Aws, Fn, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from headrace.topology.access import Host, access

from .deployment import Deployment
from .excuses import Excuse, excuse
from .names import Names

ZONES: Final = 2
"""Availability zones, with a subnet in each."""
CIDR: Final = "10.0.0.0/16"
HTTPS: Final = ec2.Port.tcp(443)

_NO_ROUTES: Final = "@aws-cdk/aws-ec2:noSubnetRouteTableId"

LOGS_KEPT: Final = logs.RetentionDays.ONE_MONTH


@dataclass(frozen=True, slots=True)
class Network:
    """What a service needs to know of where it runs. The VPC has isolated or private subnets."""

    vpc: ec2.IVpc
    cluster: ecs.ICluster


class NetworkStack(Stack):
    """A VPC for the services on Fargate, their endpoints and their cluster.

    The cluster is called as the namespace. The ids of the VPC and its subnets stand in SSM, as
    `/<namespace>/network/…`: a stack reads them when it is deployed, and holds nothing here.
    """

    def __init__(self, scope: Construct, id: str, deployment: Deployment, **options: Any) -> None:
        super().__init__(
            scope, id, description=f"Network and cluster of {deployment.system}", **options
        )
        self._namespace = deployment.namespace
        self.vpc = self._vpc()
        self._flow_logs()
        self._endpoints(dict(_permitted(deployment)))
        self._image_endpoints()
        self._cluster()
        self._tell()

    def seen_from(self, scope: Construct) -> Network:
        """This network for a construct of another stack, which is deployed after this one."""
        Stack.of(scope).add_stack_dependency(self)
        vpc = ec2.Vpc.from_vpc_attributes(
            scope,
            "Vpc",
            vpc_id=_read(scope, self._parameter("vpc")),
            vpc_cidr_block=CIDR,
            availability_zones=_zones(),
            isolated_subnet_ids=[
                _read(scope, self._parameter(f"subnet-{zone}")) for zone in range(ZONES)
            ],
        )
        for subnet in vpc.isolated_subnets:
            # Nothing here makes a route.
            Annotations.of(subnet).acknowledge_warning(_NO_ROUTES)
        cluster = ecs.Cluster.from_cluster_attributes(
            scope, "Cluster", cluster_name=self._namespace, vpc=vpc, security_groups=[]
        )
        return Network(vpc, cluster)

    # --- the VPC ---------------------------------------------------------------------------

    def _vpc(self) -> ec2.Vpc:
        vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr(CIDR),
            # By position, not by name: names are looked up in an account, before there is one.
            availability_zones=_zones(),
            nat_gateways=0,
            subnet_configuration=[
                ec2.SubnetConfiguration(
                    name="isolated", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=20
                )
            ],
        )
        self._endpoint_guard = ec2.SecurityGroup(
            self,
            "Endpoints",
            vpc=vpc,
            description="Endpoints of AWS, for whoever is in this network.",
            allow_all_outbound=False,
        )
        self._endpoint_guard.add_ingress_rule(ec2.Peer.ipv4(CIDR), HTTPS, "HTTPS from within")
        return vpc

    def _flow_logs(self) -> None:
        group = logs.LogGroup(
            self, "FlowLogs", retention=LOGS_KEPT, removal_policy=RemovalPolicy.DESTROY
        )
        excuse(group, *LOG_GROUP)
        self.vpc.add_flow_log("Flow", destination=ec2.FlowLogDestination.to_cloud_watch_logs(group))

    # --- endpoints -------------------------------------------------------------------------

    def _endpoints(self, needed: Mapping[str, _Permitted]) -> None:
        """One for each service of AWS that somebody here uses, as each costs by the hour; but a
        gateway costs nothing."""
        for name, service in _INTERFACES.items():
            if name in needed:
                _allow(self._interface(name, service), needed[name])
        if "dynamodb" in needed:
            _allow(self._gateway("dynamodb", _GATEWAY.DYNAMODB), needed["dynamodb"])

    def _image_endpoints(self) -> None:
        """ECR's own two, and one to the bucket in which it keeps layers, behind signed addresses
        that are nobody's of this account."""
        for name, service in _IMAGES.items():
            _allow(self._interface(name, service), _PULLS)
        bucket = f"arn:{Aws.PARTITION}:s3:::prod-{Aws.REGION}-starport-layer-bucket/*"
        self._gateway("s3", _GATEWAY.S3).add_to_policy(
            iam.PolicyStatement(
                principals=[iam.AnyPrincipal()], actions=["s3:GetObject"], resources=[bucket]
            )
        )

    def _interface(
        self, name: str, service: ec2.InterfaceVpcEndpointAwsService
    ) -> ec2.InterfaceVpcEndpoint:
        return self.vpc.add_interface_endpoint(
            f"Endpoint-{name}",
            service=service,
            open=False,
            private_dns_enabled=True,
            security_groups=[self._endpoint_guard],
        )

    def _gateway(
        self, name: str, service: ec2.GatewayVpcEndpointAwsService
    ) -> ec2.GatewayVpcEndpoint:
        return self.vpc.add_gateway_endpoint(f"Endpoint-{name}", service=service)

    # --- the cluster -----------------------------------------------------------------------

    def _cluster(self) -> None:
        ecs.Cluster(
            self,
            "Cluster",
            cluster_name=self._namespace,
            vpc=self.vpc,
            enable_fargate_capacity_providers=True,
            # The number of running tasks, which services are scaled by, is told by nothing else.
            container_insights_v2=ecs.ContainerInsights.ENABLED,
        )

    def _tell(self) -> None:
        told = {"vpc": self.vpc.vpc_id}
        for zone, subnet in enumerate(self.vpc.isolated_subnets):
            told[f"subnet-{zone}"] = subnet.subnet_id
        for name, value in told.items():
            ssm.StringParameter(
                self, f"Told-{name}", parameter_name=self._parameter(name), string_value=value
            )

    def _parameter(self, name: str) -> str:
        return f"/{self._namespace}/network/{name}"


LOG_GROUP: Final = (
    Excuse(
        "CKV_AWS_158",
        "CloudWatch Logs encrypts with a key of its own: one of the account's is a choice of its "
        "owner.",
    ),
    Excuse(
        "CKV_AWS_338",
        "Logs tell of the last weeks; what happened to an order stands in the tables for longer.",
    ),
)


@dataclass(frozen=True, slots=True)
class _Permitted:
    """What may go through an endpoint. Its policy narrows what roles may do, so the resources are
    all of the namespace, and stay the same when a handler is added."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]


def _permitted(deployment: Deployment) -> Iterator[tuple[str, _Permitted]]:
    """By the service of AWS, for what the services on Fargate do."""
    placed = [each for each in deployment.services if each.options.host.on_fargate]
    names = Names(deployment.namespace)
    used = {a for each in placed for g in access(each.service, Host.WORKER) for a in g.actions}
    resources = _resources(names, [each.service.bus for each in placed])
    for service, arns in resources.items():
        actions = tuple(sorted(a for a in used if a.startswith(f"{service}:")))
        if actions:
            yield service, _Permitted(actions, arns)
    if any(each.options.secrets for each in placed):
        secrets = _arn("secretsmanager", f"secret:{names.namespace}/*")
        yield "secretsmanager", _Permitted(("secretsmanager:GetSecretValue",), (secrets,))
    if deployment.tracing != "off":
        yield "xray", _Permitted(_TRACES, ("*",))
    yield "logs", _Permitted(_WRITES, (_arn("logs", "log-group:*"),))


def _resources(names: Names, buses: Sequence[str]) -> dict[str, tuple[str, ...]]:
    return {
        "sqs": (names.queue_arn("*"),),
        "dynamodb": (names.table_arn("*"),),
        "events": tuple(sorted({names.bus_arn(bus) for bus in buses})),
        "scheduler": (names.schedules_arn(),),
    }


_WRITES: Final = ("logs:CreateLogStream", "logs:PutLogEvents")
_TRACES: Final = ("xray:GetSamplingRules", "xray:GetSamplingTargets", "xray:PutTraceSegments")
_PULLS: Final = _Permitted(
    (
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetAuthorizationToken",
        "ecr:GetDownloadUrlForLayer",
    ),
    ("*",),
)
"""A token is not for a repository, so no resource can be named. The account is."""

_GATEWAY: Final = ec2.GatewayVpcEndpointAwsService
_INTERFACES: Final = {
    "events": ec2.InterfaceVpcEndpointAwsService.EVENTBRIDGE,
    "logs": ec2.InterfaceVpcEndpointAwsService.CLOUDWATCH_LOGS,
    "scheduler": ec2.InterfaceVpcEndpointAwsService("scheduler"),
    "secretsmanager": ec2.InterfaceVpcEndpointAwsService.SECRETS_MANAGER,
    "sqs": ec2.InterfaceVpcEndpointAwsService.SQS,
    "xray": ec2.InterfaceVpcEndpointAwsService.XRAY,
}
_IMAGES: Final = {
    "ecr": ec2.InterfaceVpcEndpointAwsService.ECR,
    "docker": ec2.InterfaceVpcEndpointAwsService.ECR_DOCKER,
}
"""Fargate pulls images through the network of the task. It needs no endpoint of ECS itself
("Amazon ECS interface VPC endpoints", developer guide)."""


def _allow(
    endpoint: ec2.InterfaceVpcEndpoint | ec2.GatewayVpcEndpoint, permitted: _Permitted
) -> None:
    """For the roles of this account only: an endpoint takes anybody's credentials."""
    endpoint.add_to_policy(
        iam.PolicyStatement(
            principals=[iam.AnyPrincipal()],
            actions=list(permitted.actions),
            resources=list(permitted.resources),
            conditions={"StringEquals": {"aws:PrincipalAccount": Aws.ACCOUNT_ID}},
        )
    )


def _zones() -> list[str]:
    return [Fn.select(zone, Fn.get_azs()) for zone in range(ZONES)]


def _read(scope: Construct, parameter: str) -> str:
    value: str = ssm.StringParameter.value_for_string_parameter(scope, parameter)
    return value


def _arn(service: str, resource: str) -> str:
    return f"arn:{Aws.PARTITION}:{service}:{Aws.REGION}:{Aws.ACCOUNT_ID}:{resource}"
