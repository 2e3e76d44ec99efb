/* route_doc_shared.c - the rows of shared repositories, as Letta's cloud has them. */
#include "server/route_doc_int.h"

#define GET HTTP_GET
#define POST HTTP_POST
#define DELETE HTTP_DELETE

/* ---- queries ---- */

static const doc_field PAGE[] = {
    { "limit", "int", "50", "at most so many; 0: all" },
    { "offset", "int", "0", "so many are left out before them" },
    { "deleted", "bool", "false", "those that were deleted, and can be brought back" },
    END,
};

static const doc_field FILES[] = {
    { "path_prefix", "text", NULL, "a folder, or a file: what is there" },
    { "depth", "int", NULL, "so many levels below it; without it, all" },
    { "ref", "text", NULL, "a commit; without it, `main`" },
    END,
};

static const doc_field ONE_FILE[] = {
    { "path", "text", DOC_NEEDED, "of the file" },
    END,
};

static const doc_field REF[] = {
    { "ref", "text", NULL, "a commit; without it, `main`" },
    END,
};

static const doc_field VERSIONS[] = {
    { "path", "text", NULL, "only what changed that file" },
    { "limit", "int", "20", "at most so many; 0, and what is larger: 1,000" },
    END,
};

/* ---- bodies ---- */

static const doc_field NEW_REPOSITORY[] = {
    { "name", "text", DOC_NEEDED,
      "1 to 64 of `A-Z a-z 0-9 . _ -`, in any case no other's; not `memory`" },
    END,
};

static const doc_field LINK[] = {
    { "repository_id", "text", DOC_NEEDED, "" },
    { "permissions", "'read'|'read_write'", NULL,
      "without it, as it was; of a new link `read_write`" },
    END,
};

static const doc_field NEW_FILE[] = {
    { "path", "text", DOC_NEEDED, "where nothing is yet" },
    { "content", "text", DOC_NEEDED, "text, at most 10 MiB" },
    END,
};

static const doc_field CHANGED_FILE[] = {
    { "path", "text", DOC_NEEDED, "" },
    { "content", "text", NULL, "without it, it stays" },
    { "new_path", "text", NULL, "where it goes, and nothing is yet; this, `content` or both" },
    { "precondition", "Precondition", NULL, "what must be there: 409 if it is not" },
    END,
};

static const doc_field DELETED_FILE[] = {
    { "path", "text", DOC_NEEDED, "" },
    { "precondition", "Precondition", NULL, "what must be there: 409 if it is not" },
    END,
};

/* ---- the routes ---- */

#define REPOSITORY "/v1/repositories/{repository}"

const route_doc SHARED_DOCS[] = {
    GIT_DOCS("/v1/git/{agent}/repositories/{name}"),
    GIT_DOCS("/git/{agent}/repositories/{name}"),

    { POST, "/v1/agents/{agent}/repositories", DOC_REPOSITORIES, "Linked", .body = LINK },
    { DELETE, "/v1/agents/{agent}/repositories/{repository}", DOC_REPOSITORIES, "Success",
      .more = "The repository stays." },
    { GET, "/v1/repositories", DOC_REPOSITORIES, "Repositories",
      .more = "An agent's token sees those that its agent has links to.", .query = { PAGE } },
    { POST, "/v1/repositories", DOC_REPOSITORIES, "Repository", .body = NEW_REPOSITORY,
      .errors = "409" },
    { GET, REPOSITORY, DOC_REPOSITORIES, "Repository" },
    { DELETE, REPOSITORY, DOC_REPOSITORIES, "Success" },
    { POST, REPOSITORY "/restore", DOC_REPOSITORIES, "Repository", .errors = "409" },
    { GET, REPOSITORY "/files", DOC_REPOSITORIES, "Files", .query = { FILES } },
    { POST, REPOSITORY "/files", DOC_REPOSITORIES, "Committed", .headers = DOC_REASON,
      .body = NEW_FILE, .errors = "409 507" },
    { GET, REPOSITORY "/files/content", DOC_REPOSITORIES, "File", .query = { ONE_FILE, REF } },
    { POST, REPOSITORY "/files/content", DOC_REPOSITORIES, "Committed", .headers = DOC_REASON,
      .body = CHANGED_FILE, .errors = "409 507" },
    { DELETE, REPOSITORY "/files/content", DOC_REPOSITORIES, "Removed", .headers = DOC_REASON,
      .body = DELETED_FILE, .errors = "409 507" },
    { GET, REPOSITORY "/versions", DOC_REPOSITORIES, "Versions", .query = { VERSIONS } },
    { GET, REPOSITORY "/versions/{id}", DOC_REPOSITORIES, "FileVersion", .query = { ONE_FILE } },
    { .pattern = NULL },
};
