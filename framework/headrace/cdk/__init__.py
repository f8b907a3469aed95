"""Stacks of the AWS CDK from what services say of themselves; needs the extra `headrace[cdk]`.

    from headrace.cdk.app import app

    app(Path("infra/deploy.toml")).synth()

`messaging.EventBusStack`, `on_lambda.ServiceOnLambda`, `on_fargate.ServiceOnFargate` and
`alarms.AlarmsStack` are the parts, for stacks of one's own. `bundle` needs no CDK.
"""
