// What `carrel --json` prints, as far as the tests read it.

struct StatusAnswer: Decodable {
  struct Memory: Decodable {
    let state: String
    let totalMiB: Int
    let availableMiB: Int
    let promisedMiB: Int
    let limitMiB: Int
    let reserveMiB: Int
  }

  let addresses: [String]
  let fingerprint: String?
  let memory: Memory?
}

struct PoolAnswer: Decodable {
  struct Counts: Decodable {
    let total: Int
    let clean: Int
    let assigned: Int
    let connected: Int
    let preparing: Int
    let failed: Int
  }

  let name: String
  let spares: Int
  let desktops: Counts
  let problem: String?
}

struct DesktopAnswer: Decodable {
  let id: String
  let phase: String
  let power: String
  let owner: String?
}

struct SessionAnswer: Decodable {
  let id: String
  let user: String
  let desktop: String
  let state: String
}

struct TicketAnswer: Decodable {
  let ticket: String
  let expires: String
}

struct ExplanationAnswer: Decodable {
  struct Decision: Decodable {
    let reason: String
    let text: String
  }

  let history: [Decision]
}

struct ExitAnswer: Decodable {
  let reason: String
  let detail: String
}

struct BackupJobAnswer: Decodable {
  struct Result: Decodable {
    let desktop: String
    let backup: String?
    let problem: String?
  }

  let state: String
  let problem: String?
  let results: [Result]
}

struct BackupAnswer: Decodable {
  let id: String
  let desktop: String
  let owner: String?
}
