"""A service on Fargate: its worker, and its HTTP edge behind a load balancer."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

from aws_cdk import Aws, CfnOutput, Duration
from aws_cdk import aws_certificatemanager as certificates
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_elasticloadbalancingv2 as balancing
from aws_cdk import aws_iam as iam
from constructs import Construct

from headrace.topology.access import Host

from . import tasks
from .backlog import Measured, scalable, scale_on_backlog, scale_on_processor
from .deployment import Deployment, Placed
from .excuses import Excuse, excuse
from .names import Names
from .network import HTTPS, Network, NetworkStack
from .roles import service_role
from .tasks import HTTP_PORT, TRACING_ACTIONS, Program, Task

ECS_TASKS: Final = "ecs-tasks.amazonaws.com"
HEALTHY_FROM: Final = 2
"""Good answers in a row after which a load balancer sends requests."""
DEREGISTRATION: Final = Duration.seconds(30)
"""For requests that a task is still answering when it is about to be stopped."""


class ServiceOnFargate(Construct):
    """The tasks of one service, in a network of this deployment or one that is there already.

    What `messaging` made is found by its names. The worker is scaled by its backlog per task
    (`headrace.cdk.backlog`), the HTTP edge by its processor. Where there is one it is behind a load
    balancer that only the network itself reaches; with `certificate`, the ARN of one in ACM, it
    speaks HTTPS.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        placed: Placed,
        *,
        deployment: Deployment,
        network: Network | NetworkStack,
        certificate: str = "",
    ) -> None:
        super().__init__(scope, id)
        self._placed = placed
        self._deployment = deployment
        self._names = Names(deployment.namespace)
        self._options = placed.options.on_fargate
        self._network = network.seen_from(self) if isinstance(network, NetworkStack) else network
        self.role = self._role()
        self._execution_role = self._beginning()
        self.security_group = self._security_group()
        if placed.service.queues or placed.service.emits:
            self.worker = self._worker()
        if placed.options.http:
            self.http = self._http(certificate)

    # --- roles ---

    def _role(self) -> iam.Role:
        """What handlers do, what the worker does for its own task, and what the collector sends."""
        role = service_role(self, self._placed, self._names, Host.WORKER, ECS_TASKS)
        self._let_protect(role)
        if self._deployment.tracing != "off":
            role.add_to_policy(iam.PolicyStatement(actions=list(TRACING_ACTIONS), resources=["*"]))
            excuse(role, _ALL_TRACES)
        return role

    def _let_protect(self, role: iam.Role) -> None:
        own = f"task/{self._network.cluster.cluster_name}/*"
        role.add_to_policy(
            iam.PolicyStatement(
                actions=["ecs:UpdateTaskProtection"],
                resources=[f"arn:{Aws.PARTITION}:ecs:{Aws.REGION}:{Aws.ACCOUNT_ID}:{own}"],
            )
        )
        excuse(
            role,
            Excuse(
                "AwsSolutions-IAM5",
                "A task gets its id when it begins, and no condition names its service.",
                on=f"Resource::arn:<AWS::Partition>:ecs:<AWS::Region>:<AWS::AccountId>:{own}",
            ),
        )

    def _beginning(self) -> iam.Role:
        """ECS begins tasks as this one: it pulls their images and writes their lines."""
        role = iam.Role(
            self,
            "ExecutionRole",
            assumed_by=iam.ServicePrincipal(ECS_TASKS),
            description=f"Begins the tasks of {self._placed.name}.",
        )
        # Its policy is made here, for the excuse to find it, and filled by the tasks.
        role.add_to_policy(
            iam.PolicyStatement(actions=["ecr:GetAuthorizationToken"], resources=["*"])
        )
        excuse(role, _TOKEN)
        return role

    # --- network ---

    def _security_group(self) -> ec2.SecurityGroup:
        """HTTPS to whoever the network leads to. That is narrowed by the network, which has no
        way out: gateways to DynamoDB and S3 have no security group that could be named."""
        group = ec2.SecurityGroup(
            self,
            "Guard",
            vpc=self._network.vpc,
            description=f"Tasks of {self._placed.name}.",
            allow_all_outbound=False,
        )
        group.add_egress_rule(ec2.Peer.any_ipv4(), HTTPS, "Endpoints of AWS")
        return group

    # --- the worker ---

    def _worker(self) -> ecs.FargateService:
        name = self._names.physical(self._placed.name)
        service = self._service(self, name, tasks.worker(self._placed), self._options.least)
        queues = tuple(map(self._names.physical, self._placed.service.queues))
        if queues:
            cluster = self._network.cluster.cluster_name
            target = scalable(self, service, cluster, self._options.least, self._options.most)
            scale_on_backlog(self, target, Measured(cluster, name, queues), self._options)
        return service

    def _service(
        self, scope: Construct, name: str, program: Program, least: int, **options: Any
    ) -> ecs.FargateService:
        task = Task(
            scope,
            "Task",
            program,
            self._placed,
            deployment=self._deployment,
            role=self.role,
            execution_role=self._execution_role,
        )
        service = ecs.FargateService(
            scope,
            "Service",
            service_name=name,
            cluster=self._network.cluster,
            task_definition=task.definition,
            platform_version=ecs.FargatePlatformVersion.VERSION1_4,
            capacity_provider_strategies=mixed(self._options.spot, least),
            assign_public_ip=False,
            security_groups=[self.security_group],
            min_healthy_percent=100,
            max_healthy_percent=200,
            circuit_breaker=ecs.DeploymentCircuitBreaker(enable=True, rollback=True),
            enable_ecs_managed_tags=True,
            propagate_tags=ecs.PropagatedTagSource.SERVICE,
            **options,
        )
        # Its first tasks need all that the role may do, and a first deployment has no way back.
        service.node.add_dependency(self._execution_role)
        # How many there are is the scaling's: each deployment would set it back.
        assert isinstance(service.node.default_child, ecs.CfnService)
        service.node.default_child.add_property_deletion_override("DesiredCount")
        # The CDK lets it wait for its target group by two means, of which one is enough.
        service.node.default_child.add_metadata(
            "cfn-lint", {"config": {"ignore_checks": ["W3005"]}}
        )
        return service

    # --- HTTP ---

    def _http(self, certificate: str) -> ecs.FargateService:
        scope = Construct(self, "Http")
        name = self._names.physical(f"{self._placed.name}-http")
        # Nobody counts the requests that find no task.
        least = max(1, self._options.least)
        service = self._service(
            scope,
            name,
            tasks.http(self._placed),
            least,
            health_check_grace_period=Duration.seconds(60),
        )
        cluster = self._network.cluster.cluster_name
        target = scalable(scope, service, cluster, least, max(least, self._options.most))
        scale_on_processor(scope, target, name)
        self._balancer(scope, service, certificate)
        return service

    def _balancer(self, scope: Construct, service: ecs.FargateService, certificate: str) -> None:
        guard = ec2.SecurityGroup(
            scope,
            "Guard",
            vpc=self._network.vpc,
            description=f"The load balancer of {self._placed.name}.",
            allow_all_outbound=False,
        )
        balancer = balancing.ApplicationLoadBalancer(
            scope,
            "Balancer",
            vpc=self._network.vpc,
            internet_facing=False,
            security_group=guard,
            drop_invalid_header_fields=True,
        )
        port, listener = _listener(scope, balancer, certificate)
        within = ec2.Peer.ipv4(self._network.vpc.vpc_cidr_block)
        guard.add_ingress_rule(within, ec2.Port.tcp(port), "From within the network")
        listener.add_targets(
            "Tasks",
            port=HTTP_PORT,
            protocol=balancing.ApplicationProtocol.HTTP,
            targets=[service],
            deregistration_delay=DEREGISTRATION,
            health_check=balancing.HealthCheck(
                path="/healthz",
                interval=Duration.seconds(10),
                timeout=Duration.seconds(5),
                healthy_threshold_count=HEALTHY_FROM,
            ),
        )
        excuse(balancer, *_BALANCER)
        scheme = "https" if certificate else "http"
        CfnOutput(scope, "Url", value=f"{scheme}://{balancer.load_balancer_dns_name}")


def mixed(spot: float, least: int) -> list[ecs.CapacityProviderStrategy]:
    """The first `least` tasks on demand, and of those beyond them the share `spot` on Spot, which
    AWS may take back two minutes after it has said so."""
    share = Fraction(spot).limit_denominator(100)
    weights = {"FARGATE": share.denominator - share.numerator, "FARGATE_SPOT": share.numerator}
    return [
        ecs.CapacityProviderStrategy(
            capacity_provider=provider,
            weight=weight,
            base=least if provider == "FARGATE" else None,
        )
        for provider, weight in weights.items()
        if weight or (provider == "FARGATE" and least)
    ]


def _listener(
    scope: Construct, balancer: balancing.ApplicationLoadBalancer, certificate: str
) -> tuple[int, balancing.ApplicationListener]:
    """Its port, and itself."""
    if certificate:
        return 443, balancer.add_listener(
            "Https",
            port=443,
            open=False,
            certificates=[
                certificates.Certificate.from_certificate_arn(scope, "Certificate", certificate)
            ],
            ssl_policy=balancing.SslPolicy.TLS13_RES,
        )
    plain = balancer.add_listener(
        "Plain", port=80, protocol=balancing.ApplicationProtocol.HTTP, open=False
    )
    excuse(plain, *_PLAIN)
    return 80, plain


_TOKEN: Final = Excuse(
    "AwsSolutions-IAM5",
    "The token of ECR is not for a repository: it is allowed on all, or on nothing.",
    on="Resource::*",
)
_ALL_TRACES: Final = Excuse(
    "AwsSolutions-IAM5",
    "X-Ray has no resources for these: they are allowed on all, or on nothing.",
    on="Resource::*",
)
_BALANCER: Final = (
    Excuse(
        "AwsSolutions-ELB2",
        "Nobody outside of the network gets here, whose flow logs tell who calls; lines of "
        "requests would need a bucket, which is a choice of its owner.",
    ),
    Excuse("CKV_AWS_91", "As for AwsSolutions-ELB2."),
    Excuse("CKV_AWS_150", "It has no state, and goes when the service moves to another host."),
)
_PLAIN: Final = (
    Excuse(
        "CKV_AWS_2",
        "It is reached from within the network alone, and a certificate is for a name that its "
        "owner chooses: give one.",
    ),
    Excuse("CKV_AWS_103", "As for CKV_AWS_2."),
)
