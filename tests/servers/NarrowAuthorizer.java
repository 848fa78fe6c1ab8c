import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.common.acl.AclOperation;
import org.apache.kafka.common.resource.ResourceType;
import org.apache.kafka.metadata.authorizer.StandardAuthorizer;
import org.apache.kafka.server.authorizer.Action;
import org.apache.kafka.server.authorizer.AuthorizableRequestContext;
import org.apache.kafka.server.authorizer.AuthorizationResult;

/** Kafka's own authorizer, which refuses what OCI Streaming does not have to everybody who had to sign on. */
public class NarrowAuthorizer extends StandardAuthorizer {
    private static final Set<AclOperation> REFUSED = Set.of(
        AclOperation.CREATE, AclOperation.DELETE, AclOperation.ALTER, AclOperation.ALTER_CONFIGS,
        AclOperation.DESCRIBE_CONFIGS, AclOperation.IDEMPOTENT_WRITE, AclOperation.CLUSTER_ACTION);

    @Override
    public List<AuthorizationResult> authorize(AuthorizableRequestContext context, List<Action> actions) {
        List<AuthorizationResult> allowed = super.authorize(context, actions);
        if (mayAll(context)) return allowed;
        return IntStream.range(0, actions.size())
            .mapToObj(n -> refused(actions.get(n)) ? AuthorizationResult.DENIED : allowed.get(n))
            .collect(Collectors.toList());
    }

    /** By name, not by listener: the controller is asked for topics on its own listener, in the client's name. */
    private static boolean mayAll(AuthorizableRequestContext context) {
        return context.principal().getName().equals("ANONYMOUS");
    }

    private static boolean refused(Action action) {
        if (action.resourcePattern().resourceType() == ResourceType.TRANSACTIONAL_ID) return true;
        // A group's members delete nothing; its offsets are theirs.
        return REFUSED.contains(action.operation()) && action.resourcePattern().resourceType() != ResourceType.GROUP;
    }

    /** What InitProducerId without a transaction asks: may it write to any topic at all? */
    @Override
    public AuthorizationResult authorizeByResourceType(
            AuthorizableRequestContext context, AclOperation operation, ResourceType type) {
        if (mayAll(context)) return super.authorizeByResourceType(context, operation, type);
        return AuthorizationResult.DENIED;
    }
}
