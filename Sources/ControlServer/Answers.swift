import Brokering
import ControlAPI
import Foundation
import HTTPTypes
import Hummingbird
import NIOCore

/// A value as the JSON body of an answer.
struct JSONAnswer<Value: Encodable & Sendable>: ResponseGenerator {
  let value: Value
  var status: HTTPResponse.Status = .ok

  func response(from request: Request, context: some RequestContext) throws -> Response {
    let encoder = JSONEncoder()
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
    let body = ByteBuffer(bytes: try encoder.encode(value))
    return Response(
      status: status,
      headers: [.contentType: "application/json; charset=utf-8"],
      body: ResponseBody(byteBuffer: body))
  }
}

func answer<Value: Encodable & Sendable>(
  _ value: Value, _ status: HTTPResponse.Status = .ok
) -> JSONAnswer<Value> {
  JSONAnswer(value: value, status: status)
}

/// Turns errors into `ErrorDocument`s with the status that fits.
struct ErrorAnswers: RouterMiddleware {
  typealias Context = ControlContext

  func handle(
    _ request: Request, context: Context,
    next: (Request, Context) async throws -> Response
  ) async throws -> Response {
    do {
      return try await next(request, context)
    } catch let error as BrokerError {
      return try answer(error, to: request, context)
    } catch let error as OversizedBody {
      return try answer(error, to: request, context)
    } catch let error as HTTPError where error.status == .notFound {
      return try answer(
        BrokerError(.notFound, "there is no \(request.method) \(request.uri.path) in this API"),
        to: request, context)
    } catch let error as HTTPError {
      return try answer(
        BrokerError(.invalid, error.body ?? "the request cannot be read"), to: request, context)
    }
  }

  private func answer(
    _ error: BrokerError, to request: Request, _ context: Context
  ) throws -> Response {
    let document = ErrorDocument(kind: error.kind.wire, message: error.description)
    return try JSONAnswer(value: document, status: error.kind.status)
      .response(from: request, context: context)
  }

  /// The rest of the body is not worth waiting for: the connection ends with the answer.
  private func answer(
    _ error: OversizedBody, to request: Request, _ context: Context
  ) throws -> Response {
    let document = ErrorDocument(
      kind: .invalid,
      message: "the body of \(request.method) \(request.uri.path) is larger than "
        + "\(error.limit / 1024) KiB: send less")
    var response = try JSONAnswer(value: document, status: .contentTooLarge)
      .response(from: request, context: context)
    response.headers[.connection] = "close"
    let body = response.body
    response.body = ResponseBody(contentLength: body.contentLength) { writer in
      try await body.write(writer)
      // Only this direction: who is still sending reads the answer before the end.
      try await context.channel.close(mode: .output)
    }
    return response
  }
}

extension BrokerError.Kind {
  var wire: ErrorDocument.Kind {
    switch self {
    case .notFound: .notFound
    case .exists: .exists
    case .invalid: .invalid
    case .conflict: .conflict
    case .forbidden: .forbidden
    case .storage: .storage
    case .host: .host
    }
  }

  var status: HTTPResponse.Status {
    switch self {
    case .notFound: .notFound
    case .exists, .conflict: .conflict
    case .invalid: .badRequest
    case .forbidden: .forbidden
    case .storage: .init(code: 507, reasonPhrase: "Insufficient Storage")
    case .host: .badGateway
    }
  }
}
